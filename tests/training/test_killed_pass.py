"""A process that is killed while it writes activations leaves nothing wrong behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from medtl import cache
from medtl.cache import cache_root
from medtl.training import activation_store

TRAINING = """
import sys
from medtl.data.loading import load
from medtl.networks.registry import build
from medtl.networks.pretrained import Backbone
from medtl.networks.preprocessing import Preprocessing
from medtl.settings.training import TrainSettings
from medtl.training.learner import TransferLearner

dataset = load(sys.argv[1], 48, seed=0)
network = build("small_resnet", len(dataset.classes), 48, seed=0)
backbone = Backbone("small_resnet", "random", network, Preprocessing((0.5,) * 3, (0.25,) * 3, 48))
transfer = TransferLearner(backbone, dataset, TrainSettings(epochs=40, patience=40, views=40))
transfer.train("layer4", transfer.recipe("adam", 1e-3))
"""


def unfinished() -> list[Path]:
    return list((cache_root() / activation_store.KIND).glob(".unfinished-*/*.npy"))


def test_what_a_killed_pass_left_is_not_read_and_the_next_one_is_right(
    phantom_csv, transfer, monkeypatch, tmp_path
):
    process = subprocess.Popen([sys.executable, "-c", TRAINING, str(phantom_csv)])
    while not unfinished():
        assert process.poll() is None, "the training ended before it could be killed"
        time.sleep(0.0005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert unfinished(), "killed while it wrote"

    def trained() -> dict[str, torch.Tensor]:
        made = transfer(epochs=3, views=3)
        return made.train("layer4", made.recipe("adam", 1e-3)).network.state_dict()

    after_kill = trained()
    monkeypatch.setenv("MEDTL_CACHE", str(tmp_path / "undisturbed"))
    undisturbed = trained()
    assert all(torch.equal(value, undisturbed[name]) for name, value in after_kill.items())


def test_an_entry_in_writing_makes_no_room_but_an_abandoned_one_does():
    writing = cache_root() / activation_store.KIND / ".unfinished-other"
    writing.mkdir(parents=True)
    (writing / "0.npy").write_bytes(bytes(1000))
    assert activation_store.make_room(900, budget=1000)
    assert writing.exists()
    long_ago = time.time() - cache.ABANDONED - 1
    os.utime(writing, (long_ago, long_ago))
    assert activation_store.make_room(900, budget=1000)
    assert writing.exists(), "its file has just been written"
    os.utime(writing / "0.npy", (long_ago, long_ago))
    assert activation_store.make_room(900, budget=1000)
    assert not writing.exists()
