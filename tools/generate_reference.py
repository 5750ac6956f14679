"""Generates MLproject and docs/reference/ from the settings: `python tools/generate_reference.py`.

With `--check` nothing is written: the names of files that differ are printed, and the exit status
is 1 if there are any.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from medtl.settings import comparison, evaluation, prediction, search, training  # noqa: E402  (this file also runs without an installation)
from medtl.settings.fields import Settings  # noqa: E402

ENTRY_POINTS: dict[str, type[Settings]] = {
    "train": training.TrainSettings,
    "tune": search.TuneSettings,
    "evaluate": evaluation.EvaluateSettings,
    "promote": evaluation.PromoteSettings,
    "pretrain": training.PretrainSettings,
    "compare": comparison.CompareSettings,
    "dictionary": evaluation.DictionarySettings,
    "perturb": evaluation.PerturbSettings,
    "predict": prediction.PredictSettings,
}
MAIN = "tune"  # run by `mlflow run .` without -e

PURPOSES = {
    "train": "Trains one model, scores its test split and logs both.",
    "tune": "Searches architecture, cut-off layer, optimizer and learning rate; trains the best "
    "setting again, scores its test split once and registers the model.",
    "evaluate": "Scores a registered or logged model on any data and split.",
    "promote": "Decides which version of a registered model is the champion: by the gate, by hand, "
    "or back to the one before.",
    "pretrain": "Trains a backbone on any labelled source and registers it for transfer.",
    "compare": "Runs the study of a paper, or a grid of your own, and writes one report.",
    "dictionary": "Prints and exports the best cut-off found so far for each architecture, weights "
    "and data set.",
    "perturb": "Computes universal perturbations against a trained model and counts the images "
    "whose prediction they change.",
    "predict": "Writes a table of predictions for unlabelled images: a folder, a table, or a tree "
    "of DICOM files.",
}
OWN = "Own parameters"
HEADINGS = {
    "DataSettings": "Data",
    "RenderingSettings": "Pixels",
    "LearningSettings": "Network and training",
    "ModelSettings": "Model",
    "ClusterSettings": "Workers",
    "TrainedModelSettings": "Trained model",
}
TYPES = {str: "string", int: "int", float: "float", bool: "string"}
GENERATED = "Generated from the settings by tools/generate_reference.py: do not edit."


def generated_files() -> dict[Path, str]:
    """Returns the text of each generated file, by its path in the project."""
    pages = {Path("docs/reference", f"{name}.md"): page(name) for name in ENTRY_POINTS}
    return {Path("MLproject"): mlproject(), Path("docs/reference/index.md"): index(), **pages}


def mlproject() -> str:
    """Returns the file MLproject: every entry point with its parameters and its command."""
    lines = [f"# {GENERATED}", "name: medtl", "", "conda_env: conda.yaml", "", "entry_points:"]
    for name, kind in ENTRY_POINTS.items():
        anchor = f" &{name}" if name == MAIN else ""
        hints = typing.get_type_hints(kind)
        fields = dataclasses.fields(kind)
        lines += [f"  {name}:{anchor}", "    parameters:"]
        lines += [
            f"      {field.name}: {{type: {TYPES[hints[field.name]]}, "
            f"default: {_yaml(field.default)}}}"
            for field in fields
        ]
        lines += ["    command: >-", f"      python -m entrypoints.{name}"]
        lines += [f"      --{field.name.replace('_', '-')} {{{field.name}}}" for field in fields]
    return "\n".join([*lines, f"  main: *{MAIN}", ""])


def index() -> str:
    """Returns the page that lists the entry points."""
    lines = [
        f"<!-- {GENERATED} -->",
        "# Parameters",
        "",
        "Run an entry point in the project folder as",
        "`mlflow run . -e NAME --env-manager local -P key=value`, or as",
        "`python -m entrypoints.NAME --key value`. `--help` prints the same parameters.",
        f"`mlflow run .` without `-e` runs `{MAIN}`.",
        "",
        "| entry point | purpose |",
        "| --- | --- |",
        *(f"| [`{name}`]({name}.md) | {purpose} |" for name, purpose in PURPOSES.items()),
        "",
        "Exit status: 0 done; 1 the work failed; 2 a parameter is wrong. A failure is one line;",
        "`MEDTL_DEBUG=1` adds the traceback.",
        "",
    ]
    return "\n".join(lines)


def page(name: str) -> str:
    """Returns the page of one entry point: a table of parameters for each group of settings."""
    kind = ENTRY_POINTS[name]
    module = importlib.import_module(f"entrypoints.{name}")
    lines = [f"<!-- {GENERATED} -->", f"# {name}", "", PURPOSES[name], ""]
    lines += ["```sh", f"mlflow run . -e {name} --env-manager local", "```", ""]
    for heading, fields in _groups(kind):
        lines += [f"## {heading}", "", "| parameter | default | values | meaning |"]
        lines += ["| --- | --- | --- | --- |", *(_row(kind, field) for field in fields), ""]
    flags = [each for each in module.main.params if each.is_flag and not _is_field(kind, each)]
    if flags:
        lines += ["## Options of the command line", "", "| option | meaning |", "| --- | --- |"]
        lines += [f"| `{flag.opts[0]}` | {flag.help} |" for flag in flags]
        lines.append("")
    return "\n".join(lines)


def _groups(kind: type[Settings]) -> Iterator[tuple[str, list[dataclasses.Field]]]:
    """Yields the fields of the settings by the class that declares each first, its own first."""
    owners: dict[str, list[dataclasses.Field]] = {}
    for field in dataclasses.fields(kind):
        declaring = [each for each in kind.__mro__ if field.name in vars(each).get(
            "__annotations__", {})]  # fmt: skip
        owner = declaring[-1].__name__
        owners.setdefault(HEADINGS.get(owner, OWN), []).append(field)
    headings = [each for each in (OWN, *HEADINGS.values()) if each in owners]
    for heading in headings:
        yield ("Parameters" if len(headings) == 1 else heading), owners[heading]


def _row(kind: type[Settings], field: dataclasses.Field) -> str:
    hint = typing.get_type_hints(kind)[field.name]
    default = "empty" if field.default == "" else f"`{_plain(field.default)}`"
    meaning = field.metadata["meaning"].replace("|", "\\|")
    return f"| `{field.name}` | {default} | {_values(hint, field.metadata)} | {meaning} |"


def _values(hint: type, metadata: typing.Mapping[str, typing.Any]) -> str:
    if metadata["choices"]:
        return ", ".join(f"`{choice}`" for choice in metadata["choices"])
    if hint is bool:
        return "`false`, `true`"
    kind = {str: "text", int: "whole number", float: "number"}[hint]
    low, high = metadata["low"], metadata["high"]
    if low is None and high is None:
        return kind
    if high is None:
        return f"{kind} from {low:g}"
    return f"{kind} from {low:g} to {high:g}"


def _is_field(kind: type[Settings], option: click.Parameter) -> bool:
    return option.name in {field.name for field in dataclasses.fields(kind)}


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return json.dumps(_plain(value))
    if isinstance(value, str) and (not value or "," in value):
        return json.dumps(value)
    return str(value)


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit status 1 if a file differs.")
def main(check: bool) -> None:
    """Generates MLproject and docs/reference/ from the settings."""
    differing = [
        path
        for path, text in generated_files().items()
        if not (ROOT / path).exists() or (ROOT / path).read_text() != text
    ]
    for path in differing:
        print(path)
        if not check:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(generated_files()[path])
    sys.exit(int(check and bool(differing)))


if __name__ == "__main__":
    main()
