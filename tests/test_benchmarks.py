"""The benchmarks measure what they say: equal images, equal freezing, both sides at work."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import io
import json
import math
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image
from torch import nn

from benchmarks.__main__ import benchmarks
from benchmarks.folds import fold_folders
from benchmarks.killed_command import NAME, Command
from benchmarks.medtl_side import OurSide
from benchmarks.memory import draw
from benchmarks.plain_side import auroc, freeze_before
from benchmarks.search import Race, list_key, plain_list, search_line, seconds_until, spread_line
from benchmarks.served import check_answer
from benchmarks.side_process import Side
from benchmarks.subset import write_subset
from benchmarks.ten_trials import summary
from benchmarks.trials import LATE, TEN, Found, Outcome, Trial, many
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.errors import MedtlError
from medtl.networks.cutoffs import resolve
from medtl.networks.partition import cut
from medtl.networks.registry import build


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


def test_folds_of_the_plain_loops_are_those_that_train_draws(subset: Path, tmp_path: Path):
    copied = Path(shutil.copytree(subset, tmp_path / "some"))
    places = fold_folders(copied, folds=3, size=32, seed=0)
    rows = pd.read_csv(copied / "labels.csv")
    pool = {Path(path).name for path in rows["path"][rows["split"] != "test"]}
    tested = [{each.name for each in (place / "test").rglob("*.png")} for place in places]
    assert sorted(name for names in tested for name in names) == sorted(pool)
    for place in places:
        parts = [{each.name for each in (place / split).rglob("*.png")}
                 for split in ("train", "valid", "test")]  # fmt: skip
        assert sorted(name for part in parts for name in part) == sorted(pool)
        assert all(each.is_file() for each in place.rglob("*.png"))


def test_images_that_are_missing_are_shifted_copies(tmp_path: Path):
    (tmp_path / "all").mkdir()
    write_chest_phantoms(tmp_path / "all", seed=0, patients=20, image_size=32)
    write_subset(tmp_path / "all" / "labels.csv", tmp_path / "some", train=120, valid=6, test=6)
    rows = pd.read_csv(tmp_path / "some" / "labels.csv")
    assert (rows["split"] == "train").sum() == 120
    assert rows["path"].str.contains("shifted").any()
    assert (rows.groupby("patient")["split"].nunique() == 1).all()


def test_folders_of_classes_are_divided_too_by_the_seed(subset: Path, tmp_path: Path):
    drawn = []
    for seed in (0, 0, 1):
        folder = tmp_path / str(len(drawn))
        write_subset(subset / "train", folder, train=15, valid=9, test=3, seed=seed)
        rows = pd.read_csv(folder / "labels.csv")
        assert rows.groupby("split").size().to_dict() == {"test": 3, "train": 15, "valid": 9}
        assert rows["path"].nunique() == 27
        drawn.append(set(rows.loc[rows["split"] == "valid", "path"]))
    assert drawn[0] == drawn[1] != drawn[2]


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


def test_scores_are_of_the_second_of_two_classes_and_the_mean_of_more():
    labels, second = np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.5, 0.9])
    assert auroc(labels, np.stack([1 - second, second], axis=1)) == 0.75
    three = np.eye(3)[[0, 1, 2, 0]]
    assert auroc(np.array([0, 1, 2, 0]), three) == 1


def test_medtl_is_compared_with_each_peer_over_the_whole_list():
    ours = [Outcome([0.8, 0.9], [1.0, 2.0]), Outcome([0.6, 0.7], [1.0, 2.0])]
    plain = [Outcome([0.7, 0.8], [10.0, 20.0]), Outcome([0.6, 0.6], [10.0, 20.0])]
    lines = summary({"plain": plain, "medtl": ours}, ready=4.0)
    assert lines[0].startswith("the whole list: medtl 8 s, 4.0 s of them decoding; AUROC mean 0.8")
    assert lines[1].startswith("plain 40 s, 5.0 times medtl's, an epoch of each of the ten 10.0")
    assert lines[1].endswith("medtl's mean +0.100")
    assert len(lines) == 2


def test_a_plain_list_is_kept_for_equal_images_settings_and_epochs(subset: Path, tmp_path: Path):
    kept, settings = tmp_path / "lists.json", {"seed": 0, "size": 32}
    key = list_key(subset, TEN, 3, settings)
    kept.write_text(json.dumps({key: [{"scores": [0.5, 0.75], "seconds": [1.0, 2.5]}]}))
    (outcome,) = plain_list(subset, TEN, 3, kept, **settings)
    assert (outcome.best, outcome.total) == (0.75, 2.5)
    others = [
        list_key(subset, TEN, 4, settings),
        list_key(subset, TEN[:9], 3, settings),
        list_key(subset, TEN, 3, {**settings, "seed": 1}),
        list_key(subset / "valid", TEN, 3, settings),
    ]
    assert key not in others


def test_a_race_that_is_lost_counts_as_infinite():
    listed = [Outcome([0.7, 0.8], [1.0, 2.0]), Outcome([0.9, 0.8], [3.0, 6.0])]
    assert seconds_until(listed, 0.9) == 5
    won, lost = Found(2.5, 0.9, 2, 0, "trial 1"), Found(9.0, 0.85, 7, 1, "trial 5")
    assert "by the search 2 s, 2.0 times, 2 trials begun (trial 1)" in search_line(0.9, 5.0, won)
    assert "not reached in 9 s, at best 0.850, 7 trials begun, 1 failed" in search_line(
        0.9, 5.0, lost
    )
    races = [Race(0.9, 5.0, 8.0, found) for found in (won, lost, lost)]
    assert math.isinf(races[1].seconds)
    line = spread_line(races)
    assert line.startswith(
        "reached 1 of 3, at most 0.050 short; plain list 5 (5 to 5) s to its best"
    )
    assert "search never (2 to never) s, 0.0 (0.0 to 2.0) times" in line


def test_a_search_that_ends_at_a_score_is_that_of_tune(subset: Path):
    side = OurSide(subset, "small_resnet", "random", size=32, precision="float32")
    found = side.search_until(0.01, epochs=0, limit=60, pruner="median")
    assert (found.trials, found.failed) == (1, 0)
    assert found.way.startswith("trial 0, epoch 1: adam, learning rate 0.001, trained from ")
    assert found.best >= 0.01


@pytest.mark.slow
def test_all_sides_run_a_trial_in_processes_of_their_own(subset: Path, tmp_path: Path):
    settings = {"folder": str(subset), "architecture": "mobilenet_v2", "weights": "random"}
    settings["size"] = 64
    installed = importlib.util.find_spec("lightning") is not None
    for kind in ("plain", "medtl", *(["expert"] if installed else [])):
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


def test_the_frozen_pass_is_timed_beside_timms_own():
    small = ("--architecture", "timm:test_vit", "--size", "32", "--patients", "20")
    once = ("--pairs", "1", "--trials", "2", "--plain", "1", "--epochs", "1")
    printed = CliRunner().invoke(benchmarks, ["backbone", *small, *once], catch_exceptions=False)
    passed, trained = printed.stdout.splitlines()
    assert passed.startswith("frozen pass of timm:test_vit at 32 px, ")
    assert "(1 of 2 measured)" in trained
