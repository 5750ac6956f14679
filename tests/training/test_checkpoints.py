"""A training that was cut off goes on from its last epoch and ends as an undisturbed one."""

from __future__ import annotations

import dataclasses
import os
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from medtl.cache import cache_root, checksum
from medtl.errors import MedtlError
from medtl.networks.registry import build
from medtl.training import checkpoints
from medtl.training.checkpoints import (
    ABANDONED,
    KIND,
    BestCheckpoint,
    Checkpoint,
    CheckpointHold,
)
from medtl.training.learner import Trained, TransferLearner
from medtl.training.loop import Epoch, Stopped

TRAINING = """
import sys
from medtl.data.loading import load
from medtl.networks.registry import build
from medtl.networks.pretrained import Backbone
from medtl.networks.preprocessing import Preprocessing
from medtl.settings.training import TrainSettings
from medtl.training import checkpoints
from medtl.training.learner import TransferLearner

checkpoints.LEAST = checkpoints.SHARE = 0
dataset = load(sys.argv[1], 48, seed=0)
network = build("small_resnet", len(dataset.classes), 48, seed=0)
backbone = Backbone("small_resnet", "random", network, Preprocessing((0.5,) * 3, (0.25,) * 3, 48))
transfer = TransferLearner(backbone, dataset, TrainSettings(epochs=30, patience=30, views=2))
transfer.train(
    "layer4", transfer.recipe("adam", 1e-2), lambda epoch: print(epoch.seconds, flush=True)
)
"""


class Killed(BaseException):
    """As a kill: nothing in the training answers it."""


@pytest.fixture
def often(monkeypatch):
    """A checkpoint after every epoch."""
    monkeypatch.setattr(checkpoints, "LEAST", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 0)


@pytest.fixture
def made(transfer) -> TransferLearner:
    """A network with dropout after the cut, for five epochs."""
    plain = transfer(epochs=5, patience=5)
    network = build("mobilenet_v2", 3, plain.image_size, seed=0)
    backbone = dataclasses.replace(plain.backbone, architecture="mobilenet_v2", network=network)
    return TransferLearner(backbone, plain.dataset, plain.settings)


def kept() -> list[Path]:
    return sorted((cache_root() / KIND).glob("*"))


def assert_equal(one: Trained, other: Trained) -> None:
    """Weights, curves and scores are the same to the bit."""
    states = one.network.state_dict(), other.network.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    curves = [
        [dataclasses.replace(epoch, seconds=0.0) for epoch in each.fit.epochs]
        for each in (one, other)
    ]
    assert curves[0] == curves[1]
    assert one.fit.best.number == other.fit.best.number
    assert np.array_equal(one.fit.valid_logits, other.fit.valid_logits)


def raised_after(number: int, error: BaseException) -> Callable[[Epoch], None]:
    def on_epoch(epoch: Epoch) -> None:
        if epoch.number == number:
            raise error

    return on_epoch


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_training_cut_off_twice_ends_as_an_undisturbed_one(made, often, optimizer):
    run, recipe = made.train, made.recipe(optimizer, 1e-2)
    undisturbed = run("features.18", recipe)
    assert kept() == []
    for number in (3, 5):
        with pytest.raises(Killed):
            run("features.18", recipe, raised_after(number, Killed()))
        assert [place.name[-2:] for place in kept()] == [f"{number - 1:02d}"]
    heard: list[Epoch] = []
    resumed = run("features.18", recipe, heard.append)
    assert_equal(undisturbed, resumed)
    assert tuple(heard) == resumed.fit.epochs
    assert [epoch.number for epoch in heard] == [1, 2, 3, 4, 5]
    assert kept() == []


def test_no_epoch_is_trained_again_until_the_run_has_ended_well(made, capsys):
    recipe = made.recipe("adam", 1e-2)
    undisturbed = made.train_in_two_stages("features.18", recipe)
    with pytest.raises(Killed), CheckpointHold() as ends:
        made.train_in_two_stages("features.18", recipe, raised_after(2, Killed()), ends)
    (head,) = kept()

    def killed_after_the_training() -> None:
        with CheckpointHold() as ends:
            made.train_in_two_stages("features.18", recipe, ends=ends)
            raise Killed

    with pytest.raises(Killed):
        killed_after_the_training()
    assert head in kept()
    assert len(kept()) == 2
    capsys.readouterr()
    with CheckpointHold() as ends:
        resumed = made.train_in_two_stages("features.18", recipe, ends=ends)
    assert capsys.readouterr().err.count("note: a finished training of") == 2
    assert_equal(undisturbed, resumed)
    assert kept() == []


def test_a_killed_process_is_gone_on_with_by_another(phantom_csv, transfer, often):
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(phantom_csv)], stdout=subprocess.PIPE, text=True
    )
    told = [process.stdout.readline() for _ in range(4)]
    process.kill()
    process.communicate()
    assert kept(), "killed between its first checkpoint and its end"

    made = transfer(epochs=30, patience=30)
    recipe = made.recipe("adam", 1e-2)
    resumed = made.train("layer4", recipe)
    # an epoch is not timed twice alike: these are the killed process's own
    assert [f"{epoch.seconds}\n" for epoch in resumed.fit.epochs[:3]] == told[:3]
    assert_equal(made.train("layer4", recipe), resumed)


def test_no_other_training_takes_it_up(made, often):
    recipe = made.recipe("adam", 1e-2)
    with pytest.raises(Killed):
        made.train("classifier", recipe, raised_after(4, Killed()))
    (mine,) = kept()
    others = [
        (made, "features.18", recipe),
        (made, "classifier", dataclasses.replace(recipe, lr=1e-3)),
        (dataclasses.replace(made, rows=np.arange(40)), "classifier", recipe),
        (dataclasses.replace(made, view_seed=9), "classifier", recipe),
    ]
    network = made.backbone.copy()
    network.classifier[1].bias.data += 1
    backbone = dataclasses.replace(made.backbone, network=network)
    others.append((dataclasses.replace(made, backbone=backbone), "classifier", recipe))
    for other, cutoff, asked in others:
        with pytest.raises(Killed):
            other.train(cutoff, asked, raised_after(1, Killed()))
    assert kept() == [mine], "each of them began with its first epoch"


@pytest.mark.parametrize("error", [Stopped("pruned"), MedtlError("not a finite number")])
def test_a_training_that_has_ended_leaves_none(made, often, error):
    with pytest.raises(type(error)):
        made.train("classifier", made.recipe("adam", 1e-2), raised_after(3, error))
    assert kept() == []


def test_what_is_damaged_is_dropped_and_nothing_in_it_is_executed(often, tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    checkpoint = Checkpoint("key")
    for epoch in (1, 2):
        checkpoint.keep(epoch, lambda: {"epochs": torch.arange(1000)})
    (place,) = kept()
    whole = (place / "state.pt").read_bytes()
    (place / "state.pt").write_bytes(whole[:-200] + bytes([whole[-200] ^ 1]) + whole[-199:])
    assert checkpoint.found() is None
    assert kept() == []

    checkpoint.keep(3, lambda: {"epochs": 3})
    (place,) = kept()
    (place / "state.pt").write_bytes(pickle.dumps(Evil()))
    record = {"checksum": checksum(place / "state.pt")}
    (place / "entry.json").write_text(str(record).replace("'", '"'))
    assert checkpoint.found() is None
    assert kept() == []
    assert not (tmp_path / "executed").exists()


def test_only_the_best_training_of_a_search_is_kept_and_its_refit_trains_no_epoch(made, capsys):
    best = BestCheckpoint()
    recipes = [made.recipe("adam", lr) for lr in (1e-2, 1e-4, 3e-3)]
    trained = [made.train("features.18", recipe, ends=best) for recipe in recipes]
    scores = [each.fit.best.valid_auroc for each in trained]
    first = scores.index(max(scores))
    assert best.best == scores[first]
    assert len(kept()) == 1
    best.release(scores[first])
    assert len(kept()) == 1
    capsys.readouterr()
    with CheckpointHold() as ends:
        refitted = made.train("features.18", recipes[first], ends=ends)
    assert "note: a finished training of" in capsys.readouterr().err
    assert_equal(trained[first], refitted)
    assert kept() == []
    worse = BestCheckpoint()
    made.train("features.18", recipes[first], ends=worse)
    worse.release(1.0)
    assert kept() == [], "another worker had a better one"


def test_a_disk_that_refuses_does_not_stop_the_training(made, often, capsys):
    recipe = made.recipe("adam", 1e-2)
    undisturbed = made.train("features.18", recipe)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        refused = made.train("features.18", recipe)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_equal(undisturbed, refused)
    assert capsys.readouterr().err.count("no checkpoint of this training is kept") == 1
    assert kept() == []


def test_a_short_training_writes_none_and_what_was_given_up_is_cleared(made, monkeypatch):
    monkeypatch.setattr(checkpoints, "LEAST", 600.0)  # also where the machine is busy
    abandoned = cache_root() / KIND / "0123-000004"
    abandoned.mkdir(parents=True)
    young = cache_root() / KIND / "4567-000001"
    young.mkdir()
    long_ago = time.time() - ABANDONED - 1
    os.utime(abandoned, (long_ago, long_ago))
    with pytest.raises(Killed):
        made.train("classifier", made.recipe("adam", 1e-2), raised_after(3, Killed()))
    assert kept() == [young]
