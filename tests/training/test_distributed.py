"""One training in two processes is, but for rounding, that of one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from medtl.cache import cache_root
from medtl.training.activation_store import KIND
from medtl.training.learner import TransferLearner
from medtl.training.loop import Epoch

# Cut-off, optimizer, settings. Some of the batches of three are one process's alone.
TRAININGS = {
    "kept": ("layer4", "adam", {"balance": "loss", "batch_size": 16, "lr": 1e-2}),
    "fresh": ("layer4", "sgd", {"keep": "never", "batch_size": 3, "epochs": 1}),
    "drawn": ("fc", "adamw", {"balance": "sampler", "augment": "none", "schedule": "two_stage"}),
}
COMMON = {"epochs": 2, "views": 2, "precision": "float32"}

SCRIPT = """
import contextlib
import sys
from pathlib import Path

import torch
from test_distributed import COMMON, TRAININGS, outcome

from medtl.data.loading import load
from medtl.networks.registry import build
from medtl.networks.pretrained import Backbone
from medtl.networks.preprocessing import Preprocessing
from medtl.settings.training import TrainSettings
from medtl.training import checkpoints
from medtl.training.distributed import heard, joined
from medtl.training.learner import TransferLearner

class CutOff(BaseException):
    pass

def cut_off_in_the_second(epoch):
    if epoch.number == 2:
        raise CutOff

checkpoints.LEAST = checkpoints.SHARE = 0
dataset = load(sys.argv[1], 48, seed=0)
network = build("small_resnet", len(dataset.classes), 48, seed=0)
backbone = Backbone("small_resnet", "random", network, Preprocessing((0.5,) * 3, (0.25,) * 3, 48))
with joined("cpu") as team, heard(team):
    for name, (_, _, settings) in TRAININGS.items():
        chosen = TrainSettings(**{**COMMON, **settings})
        made = TransferLearner(backbone, dataset, chosen, team=team)
        if name == "kept":
            with contextlib.suppress(CutOff):
                outcome(name, made, cut_off_in_the_second)
        torch.save(outcome(name, made), Path(sys.argv[2]) / f"{name}{team.rank}.pt")
    if team.rank == 1:
        raise ValueError("one of us has had enough")
    team.all_agree(True)
"""


def outcome(
    name: str, made: TransferLearner, on_epoch: Callable[[Epoch], None] = lambda epoch: None
) -> dict:
    """What one of the trainings comes to, and the activations that it has kept."""
    cutoff, optimizer, _ = TRAININGS[name]
    two_stages = made.settings.schedule == "two_stage"
    train = made.train_in_two_stages if two_stages else made.train
    trained = train(cutoff, made.recipe(optimizer, made.settings.lr), on_epoch)
    feed = made.feed(trained.cut, "train", made.augmentation)
    return {
        "weights": trained.network.state_dict(),
        "losses": [(epoch.train_loss, epoch.valid_loss) for epoch in trained.fit.epochs],
        "seconds": [epoch.seconds for epoch in trained.fit.epochs],
        "valid": torch.from_numpy(trained.fit.valid_logits),
        "test": torch.from_numpy(made.logits(trained, "test")),
        "norms": sum(type(each) is nn.BatchNorm2d for each in trained.network.modules()),
        "kept": [] if (kept := feed.view(1)) is None else [torch.tensor(a) for a in kept.arrays],
    }


def bytes_kept() -> int:
    return sum(file.stat().st_size for file in (cache_root() / KIND).rglob("*.npy"))


@pytest.mark.slow
def test_two_processes_train_as_one_go_on_as_one_and_end_as_one(
    phantom_csv, transfer, tmp_path, monkeypatch
):
    (tmp_path / "script.py").write_text(SCRIPT)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         tmp_path / "script.py", phantom_csv, tmp_path],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert ended.returncode == 1
    said = f"MedtlError: process 1 on {socket.gethostname()}: ValueError: one of us has had enough"
    assert ended.stderr.count(said) == 1, ended.stderr
    assert "\nValueError" not in ended.stderr, "the first process speaks for all"
    together = bytes_kept()
    monkeypatch.setenv("MEDTL_CACHE", str(tmp_path / "alone"))
    for name, (_, _, settings) in TRAININGS.items():
        alone = outcome(name, transfer(**{**COMMON, **settings}))
        first, second = (torch.load(tmp_path / f"{name}{rank}.pt") for rank in (0, 1))
        for part in ("weights", "losses", "valid", "test"):
            torch.testing.assert_close(first[part], second[part], rtol=0, atol=0)
            torch.testing.assert_close(first[part], alone[part], rtol=1e-4, atol=1e-4, msg=name)
        if name == "kept":
            assert first["seconds"][0] == second["seconds"][0], "both took up one checkpoint"
        assert first["norms"] == alone["norms"] > 0, "the network itself stays what it was"
        for whole, *halves in zip(alone["kept"], first["kept"], second["kept"], strict=True):
            for rank, half in enumerate(halves):
                torch.testing.assert_close(half, whole[rank::2], rtol=2e-3, atol=2e-3)
    assert bytes_kept() <= together < 1.1 * bytes_kept(), "no image is kept twice"
