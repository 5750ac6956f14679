"""Commands of README, CONTRIBUTING and docs/, as words; those that the tests run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
RUN_BEGINS = ["mlflow", "run", "."]

# Run by test_docs_run.py, in this order, in the syntax of the pages.
RUN_HERE = """
python -m entrypoints.train --list-cutoffs --architecture densenet121
mlflow run . -e tune --env-manager local
mlflow run . -e train --env-manager local -P weights=random -P cutoff=all -P model_name=medtl-random
mlflow run . -e perturb --env-manager local -P models=models:/medtl-random/1
mlflow run . -e pretrain --env-manager local -P data=digits -P architecture=small_resnet \\
  -P backbone_name=digits-backbone
mlflow run . -e train --env-manager local -P architecture=small_resnet \\
  -P weights=models:/digits-backbone/1
mlflow run . -e train --env-manager local -P transfer=hybrid -P classifier=svm -P pca=50
mlflow run . -e dictionary --env-manager local
mlflow run . -e tune --env-manager local -P data=/path/to/images \\
  -P patient_pattern='(person[0-9]+)_'
mlflow run . -e tune --env-manager local -P data=/path/to/labels.csv
mlflow run . -e tune --env-manager local -P data=/path/to/cases.csv -P architecture=transmed
mlflow run . -e tune --env-manager local -P data=phantoms-findings
mlflow run . -e compare --env-manager local -P study=grid -P cutoffs=head,layer4 -P seeds=0,1
mlflow run . -e train --env-manager local -P data=chest/labels.csv -P duplicates=allow \\
  -P weights=imagenet -P architecture=mobilenet_v2 -P image_size=128 -P cutoff=features.14 \\
  -P epochs=3 -P model_name=medtl-chest
mlflow run . -e evaluate --env-manager local -P model=models:/medtl-chest@champion \\
  -P against=natural,blood,ultrasound
mlflow run . -e evaluate --env-manager local -P model=models:/medtl-chest@champion \\
  -P data=/path/to/clinic.csv -P split=all \\
  -P mapping="pneumonia=bacteria|virus,healthy=normal,other="
mlflow run . -e promote --env-manager local -P model_name=medtl-chest
mlflow models serve -m models:/medtl-phantoms@champion --env-manager local --port 5001
python tools/generate_reference.py
"""


@dataclass(frozen=True)
class Command:
    """A command of a page: its words, and the variables set for it alone."""

    page: Path
    words: tuple[str, ...]
    variables: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return shlex.join(self.words)


def blocks(page: Path, language: str = "sh") -> list[str]:
    """Returns the text of each fenced block of a language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def commands_of(page: Path) -> Iterator[Command]:
    """Yields the commands of a page."""
    for block in blocks(page):
        yield from commands_in(block, page)


def commands_in(block: str, page: Path = ROOT) -> Iterator[Command]:
    """Yields the commands of a shell script: those of its lines, parted at `&&`."""
    text = re.sub(r"<<(\w+)\n.*?\n\1\n", "\n", block.replace("\\\n", " "), flags=re.DOTALL)
    pending = ""
    for line in text.splitlines():
        pending += line + "\n"
        if pending.rstrip().endswith("|"):
            continue
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:  # a quotation that goes on in the next line
            continue
        pending = ""
        for each in _split(words, "&&"):
            count = next((n for n, word in enumerate(each) if not _is_set(word)), len(each))
            yield Command(page, tuple(each[count:]), tuple(each[:count]))
    assert not pending, f"{page.name}: a quotation without an end: {pending}"


def _is_set(word: str) -> bool:
    return re.match(r"[A-Z_]+=", word) is not None


def _split(words: list[str], sign: str) -> Iterator[list[str]]:
    part: list[str] = []
    for word in [*words, sign]:
        if word != sign:
            part.append(word)
        elif part:
            yield part
            part = []


COMMANDS = [command for page in PAGES for command in commands_of(page)]
UNIQUE = list({command.text: command for command in COMMANDS}.values())
RUN = [command.text for command in commands_in(RUN_HERE)]
