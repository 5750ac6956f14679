"""The benchmarks measure what they say: equal images, equal freezing, both sides at work."""

from __future__ import annotations

import base64
import contextlib
import io
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import optuna
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image
from torch import nn

from benchmarks.__main__ import benchmarks
from benchmarks.killed import NAME, Command
from benchmarks.memory import draw
from benchmarks.plain import freeze_before
from benchmarks.served import check_answer
from benchmarks.side import Side
from benchmarks.subset import write_subset
from benchmarks.trials import LATE, TEN, Trial, many
from medtl.data.phantoms import write_chest_phantoms
from medtl.errors import MedtlError
from medtl.networks.architectures import build
from medtl.networks.cut import cut
from medtl.networks.cutpoints import resolve


@pytest.fixture(scope="module")
def subset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("benchmark")
    (root / "all").mkdir()
    write_chest_phantoms(root / "all", seed=0, patients=40, image_size=32)
    write_subset(root / "all" / "labels.csv", root / "some", train=30, valid=12, test=6)
    return root / "some"


def test_a_subset_is_balanced_and_has_each_patient_in_one_split(subset: Path):
    rows = pd.read_csv(subset / "labels.csv")
    counts = rows.groupby(["split", "label"]).size().unstack()
    assert (counts.loc["train"] == 10).all()
    assert (counts.loc["valid"] == 4).all()
    assert (rows.groupby("patient")["split"].nunique() == 1).all()
    assert all((subset / path).is_file() for path in rows["path"])


def test_images_that_are_missing_are_shifted_copies(tmp_path: Path):
    (tmp_path / "all").mkdir()
    write_chest_phantoms(tmp_path / "all", seed=0, patients=20, image_size=32)
    write_subset(tmp_path / "all" / "labels.csv", tmp_path / "some", train=120, valid=6, test=6)
    rows = pd.read_csv(tmp_path / "some" / "labels.csv")
    assert (rows["split"] == "train").sum() == 120
    assert rows["path"].str.contains("shifted").any()
    assert (rows.groupby("patient")["split"].nunique() == 1).all()


def test_as_many_phantoms_are_drawn_as_are_asked_for(tmp_path: Path):
    rows = pd.read_csv(draw(tmp_path / "images", 200, image_size=16))
    assert len(rows) == 200 == rows["path"].nunique()
    assert rows["patient"].nunique() > 60
    assert all((tmp_path / "images" / path).is_file() for path in rows["path"])


@pytest.mark.parametrize("cutoff", ["classifier", "features.14", "features.0"])
def test_both_sides_train_the_same_parameters(cutoff: str):
    plain, ours = (build("mobilenet_v2", 3, 32, seed=0) for _ in "ab")
    norms = freeze_before(plain, cutoff)
    divided = cut(ours, resolve(ours, "mobilenet_v2", cutoff), 32)
    trained = {name for name, parameter in plain.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in divided.suffix.named_parameters()}
    frozen = [m for m in divided.prefix.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == len(frozen)


def test_a_finished_trial_that_a_kill_took_away_or_changed_is_counted(tmp_path: Path):
    search = Command(tmp_path / "search", "tune", {})
    assert search.lost() == 0, "killed before there was any"
    storage = f"sqlite:///{tmp_path / 'search' / 'optuna.db'}"
    study = optuna.create_study(study_name=NAME, storage=storage)
    for value in (0.5, 0.75):
        study.add_trial(optuna.trial.create_trial(value=value))
    study.ask()
    assert search.lost() == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "search" / "optuna.db")) as database:
        database.execute("UPDATE trial_values SET value = 0.25 WHERE value = 0.75")
        database.execute("UPDATE trials SET state = 'RUNNING' WHERE number = 0")
        database.commit()
    assert search.lost() == 2


def test_many_trials_begin_with_the_given_and_differ():
    assert tuple(many(TEN, 10)) == TEN
    assert len(set(many(LATE, 30))) == 30


@pytest.mark.slow
def test_both_sides_run_a_trial_in_processes_of_their_own(subset: Path, tmp_path: Path):
    settings = {"folder": str(subset), "architecture": "mobilenet_v2", "weights": "random"}
    for kind in ("plain", "medtl"):
        with Side(kind, tmp_path / kind, **settings) as side:
            assert side.prepare() >= 0
            outcome = side.run(Trial("classifier", "sgd", 1e-2), epochs=1)
            assert len(outcome.scores) == 1
            assert outcome.total > 0
            assert 0 <= outcome.best <= 1
            assert (side.disk_gb() > 0) == (kind == "medtl")


@pytest.mark.slow
def test_a_network_goes_the_whole_road_and_one_that_fails_does_not_stop_it():
    arguments = ["papers", "--image-size", "64", "--only", "resnet19", "--only", "squeezenet1_1"]
    done = CliRunner().invoke(benchmarks, arguments)
    assert done.exit_code == 1, "one of them failed"
    (unknown,) = (line for line in done.output.splitlines() if line.startswith("resnet19"))
    assert "resnet18" in unknown, "the reason is what the training said"
    (known,) = (line for line in done.output.splitlines() if line.startswith("squeezenet1_1"))
    _, parameters, _, *costs, right = known.split()
    assert float(parameters) == pytest.approx(0.7, abs=0.1)
    assert all(float(cost) > 0 for cost in costs[::2])
    assert right == "yes"


def answer(**changed: object) -> dict:
    """A server's right answer to one image, but for what is changed."""
    picture = io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "PNG")
    row = {
        "label": "clear",
        "probabilities": {"clear": 0.75, "focal": 0.25},
        "error": None,
        "heatmap": base64.b64encode(picture.getvalue()).decode("ascii"),
    }
    return {"predictions": [row | changed]}


def test_a_right_answer_passes():
    check_answer(200, answer(), ("clear", "focal"), explained=True)


@pytest.mark.parametrize(
    ("status", "wrong", "reason"),
    [
        (400, {"message": "the request has no rows"}, "status 400: the request has no rows"),
        (200, answer(error="not an image"), "not an image"),
        (200, answer(probabilities={"clear": 0.75, "focal": 0.5}), "no probabilities of"),
        (200, answer(probabilities={"clear": 1.0}), "no probabilities of"),
        (200, answer(label="focal"), "focal is not the most probable"),
        (200, answer(heatmap=None), "no heat map"),
        (200, answer(heatmap=base64.b64encode(b"GIF89a").decode("ascii")), "no heat map"),
    ],
)
def test_a_wrong_answer_is_told_from_a_right_one(status: int, wrong: dict, reason: str):
    with pytest.raises(MedtlError, match=reason):
        check_answer(status, wrong, ("clear", "focal"), explained=True)
