"""The folder that MLflow makes for Docker, and the Dockerfile of docs/docker.md for it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner
from mlflow.cli import cli
from mlflow.models.model import ModelInfo
from mlflow.pyfunc import scoring_server

from medtl.errors import MedtlError
from medtl.serving.handler import BUNDLE, ServedModel

PAGE = (Path(__file__).parents[2] / "docs" / "docker.md").read_text()


@pytest.fixture
def image(logged: ModelInfo, tmp_path: Path) -> Path:
    folder = tmp_path / "image"
    asked = ["models", "generate-dockerfile", "-m", logged.model_uri, "--env-manager", "local"]
    done = CliRunner().invoke(cli, [*asked, "-d", str(folder)])
    assert done.exit_code == 0, done.output
    return folder


def instructions() -> list[tuple[str, str]]:
    """The instructions of the page's Dockerfile, each with its arguments on one line."""
    (block,) = re.findall(r"```dockerfile\n(.*?)```", PAGE, flags=re.DOTALL)
    lines = re.sub(r"\\\n\s*", "", block).splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def test_the_folder_holds_what_the_page_lists(image: Path):
    named = re.findall(r"^\| `(\S+)` \|", PAGE, flags=re.MULTILINE)
    assert len(named) >= 6
    of_registered = "model_dir/registered_model_meta"
    assert [name for name in named if not (image / name).exists()] in ([], [of_registered])
    model = image / "model_dir"
    pins = (model / "requirements.txt").read_text().split()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins), pins
    assert any(pin.startswith("mlflow==") for pin in pins)
    python = yaml.safe_load((model / "python_env.yaml").read_text())["python"]
    assert python == ".".join(map(str, sys.version_info[:3]))
    assert "USER" not in (image / "Dockerfile").read_text(), "MLflow's serves as another user now"


def test_the_folder_is_a_model_that_is_checked_at_its_start(image: Path):
    bundle = image / "model_dir" / "artifacts" / BUNDLE
    ServedModel().load(bundle)
    (bundle / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(MedtlError, match="checksum"):
        ServedModel().load(bundle)


def test_the_dockerfile_of_the_page_needs_only_what_is_brought(image: Path):
    steps = instructions()
    (base,) = [rest for step, rest in steps if step == "FROM"]
    assert f"docker save {base} " in PAGE
    for step, rest in steps:
        if step == "COPY":
            assert (image / rest.split()[0]).exists()
        if step == "RUN" and "pip install" in rest:
            assert "--no-index" in rest
            assert "source=wheels" in rest
            assert "pip download --only-binary=:all: -d image/wheels" in PAGE
        assert step != "RUN" or not re.search(r"apt|curl|wget|git ", rest)


def test_the_dockerfile_of_the_page_serves_as_a_user_with_a_health_check():
    steps = instructions()
    order = [step for step, _ in steps]
    (user,) = [rest for step, rest in steps if step == "USER"]
    assert user != "root"
    assert order.index("USER") < order.index("ENTRYPOINT")
    (checked,) = [rest for step, rest in steps if step == "HEALTHCHECK"]
    program = json.loads(checked.partition("CMD ")[2])
    compile(program[2], "HEALTHCHECK", "exec")
    (path,) = re.findall(r"http://127\.0\.0\.1:\d+(/\w+)", program[2])
    assert f'"{path}"' in Path(scoring_server.__file__).read_text()
    (entry,) = [json.loads(rest) for step, rest in steps if step == "ENTRYPOINT"]
    (target,) = [rest.split()[1] for step, rest in steps if step == "COPY"]
    assert target in entry
    command: click.Command = cli
    for word in entry[1:3]:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    command.make_context("serve", entry[3:])
    (port,) = [rest for step, rest in steps if step == "EXPOSE"]
    assert port in entry
    assert f":{port}/" in program[2]
