"""Architectures: registration by a file or a package, and building by name, seed and size."""

from __future__ import annotations

import copy
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from medtl.errors import ParameterError
from medtl.networks import architectures, registry
from medtl.networks.cutoffs import cut_points, resolve
from medtl.networks.partition import cut
from medtl.networks.pretrained import load_weights, preprocessing
from medtl.networks.registry import (
    Architecture,
    architecture_names,
    build,
    find,
    packages,
    register,
    register_architecture,
)
from tests.page_commands import ROOT, blocks

TINY = """
from torch import nn
from medtl.networks.registry import register_architecture

@register_architecture("{name}", image_size=24, output_layer="out", mean=(0.1,) * 3)
class Tiny(nn.Sequential):
    def __init__(self, classes):
        super().__init__()
        self.add_module("stem", nn.Conv2d(3, 8, 3, stride=2))
        self.add_module("norm", nn.BatchNorm2d(8))
        self.add_module("body", nn.Conv2d(8, 8, 3, padding=1))
        self.add_module("pool", nn.AdaptiveAvgPool2d(1))
        self.add_module("flat", nn.Flatten())
        self.add_module("out", nn.Linear(8, classes))
"""


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Removes afterwards what a test registers and imports."""
    monkeypatch.setattr(registry, "_architectures", dict(registry._architectures))
    monkeypatch.setattr(registry, "_broken", {})
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def add_package(folder: Path, package: str, point: str, source: str) -> None:
    """Writes a module and the metadata of an installed package with one entry point."""
    (folder / f"{point}.py").write_text(source, "utf-8")
    metadata = folder / f"{package}-1.5.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Name: {package}\nVersion: 1.5\n", "utf-8")
    lines = f"[medtl.architectures]\n{point} = {point}\n"
    (metadata / "entry_points.txt").write_text(lines, "utf-8")


def assert_trains(name: str) -> None:
    """A step through the cut moves the suffix and nothing before it."""
    network = build(name, classes=3, image_size=24, seed=0)
    load_weights(network, name, "random")
    assert [point.name for point in cut_points(network, "layers")] == [
        "stem",
        "norm",
        "body",
        "out",
    ]
    images = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    whole = network.eval()(images)
    halves = cut(network, resolve(network, name, "body"), 24)
    torch.testing.assert_close(halves.suffix(*halves.prefix(images)), whole)
    before = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.SGD(halves.suffix.parameters(), lr=0.1)
    nn.functional.cross_entropy(
        halves.suffix.train()(*halves.prefix(images)), torch.tensor([0, 1, 2, 0])
    ).backward()
    optimizer.step()
    moved = {key for key, value in network.state_dict().items() if not before[key].equal(value)}
    assert moved == {"body.weight", "body.bias", "out.weight", "out.bias"}


def test_an_architecture_is_one_file_in_the_folder(
    tmp_path: Path, own_registry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny_network.py").write_text(TINY.format(name="tiny_file"), "utf-8")
    monkeypatch.setattr(architectures, "__path__", [*architectures.__path__, str(tmp_path)])
    assert "tiny_file" in architecture_names()
    assert_trains("tiny_file")
    assert preprocessing("tiny_file").mean == (0.1, 0.1, 0.1)
    assert preprocessing("tiny_file").image_size == 24
    assert packages("tiny_file") == ()
    cases = build("late_fusion:tiny_file", classes=2, image_size=24, seed=0, modalities=2)
    assert cases(torch.rand(2, 6, 24, 24)).shape == (2, 2)
    pair = build("dual:tiny_file+small_resnet", classes=2, image_size=24, seed=0)
    assert pair.eval()(torch.rand(2, 3, 24, 24)).shape == (2, 2)


def test_the_example_of_the_page_is_complete(
    tmp_path: Path, own_registry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = blocks(ROOT / "docs" / "architectures.md", "python")
    ruff = ("ruff", "check", "--stdin-filename", str(Path(*architectures.__path__, "tiny.py")), "-")
    linted = subprocess.run(
        [sys.executable, "-m", *ruff], input=example, cwd=ROOT, capture_output=True, text=True
    )
    assert linted.returncode == 0, linted.stdout
    (tmp_path / "tiny.py").write_text(example, "utf-8")
    monkeypatch.setattr(architectures, "__path__", [*architectures.__path__, str(tmp_path)])
    network = build("tiny", classes=3, image_size=64, seed=0)
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 3)
    assert len(cut_points(network, "layers")) == 2


def test_a_package_adds_an_architecture_by_its_entry_point(
    tmp_path: Path, own_registry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_package(tmp_path, "tiny-nets", "tiny_nets", TINY.format(name="tiny_package"))
    with pytest.raises(ParameterError, match="needs that package installed"):
        build("tiny_package", classes=3, image_size=24, seed=0)
    monkeypatch.syspath_prepend(tmp_path)
    assert "tiny_nets" not in sys.modules
    assert_trains("tiny_package")
    assert packages("tiny_package") == packages("late_fusion:tiny_package") == ("tiny-nets",)
    assert packages("dual:tiny_package+resnet18") == ("tiny-nets",)


def test_a_broken_package_is_named_in_one_line_and_leaves_the_others_usable(
    tmp_path: Path,
    own_registry: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = TINY.format(name="half_there") + "\nraise OSError('a library\\nis missing')\n"
    add_package(tmp_path, "broken-nets", "broken_nets", source)
    add_package(tmp_path, "tiny-nets", "tiny_nets", TINY.format(name="tiny_package"))
    monkeypatch.syspath_prepend(tmp_path)
    build("small_resnet", classes=2, image_size=32, seed=0)
    assert not caplog.records  # nothing of other packages is loaded for it
    assert_trains("tiny_package")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "broken-nets are left out" in record.getMessage()
    assert "OSError: a library is missing" in record.getMessage()
    with pytest.raises(ParameterError, match="broken-nets cannot be loaded") as raised:
        build("half_there", classes=2, image_size=24, seed=0)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["resnet18", "", "a:b", "a+b", "a,b"])
def test_names_that_cannot_be_registered(name: str, own_registry: None) -> None:
    find("resnet18")
    with pytest.raises(ValueError, match="architecture"):
        register_architecture(name, image_size=32)(nn.Module)
    with pytest.raises(ValueError, match="architecture"):
        register(Architecture(name, lambda classes, side, modalities: nn.Module()))


def test_an_architecture_is_told_what_it_asks_for(own_registry: None) -> None:
    given = []

    def make(**options: int) -> nn.Module:
        given.append(options)
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))

    register_architecture("of_cases", image_size=32, takes_cases=True)(make)
    register_architecture("of_one_size", image_size=32, fixed_size=True)(make)
    build("of_cases", classes=2, image_size=8, seed=0, modalities=2)
    with pytest.raises(ParameterError, match="of_one_size says"):
        build("of_one_size", classes=2, image_size=8, seed=0)  # of one image, not of two
    assert given == [{"classes": 2, "modalities": 2}, {"classes": 2, "image_size": 8}]


def test_every_classification_network_of_torchvision_is_there() -> None:
    names = architecture_names()
    assert {"alexnet", "densenet121", "vit_b_16", "maxvit_t", "swin_v2_t"} <= set(names)
    theirs = set(torchvision.models.list_models(module=torchvision.models))
    assert theirs <= set(names)


def test_no_module_but_its_own_names_an_architecture() -> None:
    folder = Path(registry.__file__).parent
    own = set(architecture_names()) - set(torchvision.models.list_models(module=torchvision.models))
    assert "small_resnet" in own
    for module in (*folder.glob("*.py"), folder.parent / "inference" / "predictor.py"):
        named = [each for each in sorted(own) if f'"{each}"' in module.read_text("utf-8")]
        assert not named, module


def test_the_seed_decides_the_weights_and_nothing_else_does() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = build("squeezenet1_1", classes=4, image_size=32, seed=7).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    same = build("squeezenet1_1", classes=4, image_size=32, seed=7).state_dict()
    other = build("squeezenet1_1", classes=4, image_size=32, seed=8).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert not torch.equal(one["features.0.weight"], other["features.0.weight"])


@pytest.mark.parametrize(
    ("architecture", "image_size"), [("googlenet", 32), ("inception_v3", 75), ("vit_b_32", 64)]
)
def test_scores_of_as_many_classes_as_asked(architecture: str, image_size: int) -> None:
    network = build(architecture, classes=5, image_size=image_size, seed=0)
    # In training too, where auxiliary heads would answer beside the main one.
    scores = network.train()(torch.rand(2, 3, image_size, image_size))
    assert scores.shape == (2, 5)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ParameterError, match=r"architecture=resnet_18 .*resnet18"):
        build("resnet_18", classes=2, image_size=32, seed=0)


@pytest.mark.parametrize(
    ("architecture", "image_size"),
    [("alexnet", 32), ("inception_v3", 64), ("vit_b_16", 100), ("maxvit_t", 200)],
)
def test_an_image_size_that_the_network_cannot_take(architecture: str, image_size: int) -> None:
    with pytest.raises(ParameterError, match=f"image_size={image_size} .*{architecture}") as raised:
        build(architecture, classes=2, image_size=image_size, seed=0)
    assert "\n" not in str(raised.value)
