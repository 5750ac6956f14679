"""The frozen pass of a timm backbone beside timm's own, and trials of a head on cached features.

Both sides run in this process, on the same random weights and the same pixels, in turn. Seconds are
those of the processor, so that other processes disturb them less.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medtl.data.dataset import Dataset
from medtl.data.loading import load
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.networks.cutoffs import resolve
from medtl.networks.partition import cut
from medtl.networks.preprocessing import network_input, unit_images
from medtl.networks.pretrained import Backbone, load_weights
from medtl.networks.registry import build
from medtl.settings.training import TrainSettings
from medtl.training.device import autocast, resolve_device, resolve_precision
from medtl.training.learner import TransferLearner
from medtl.training.loaders import PASS_BATCH

RATES = np.geomspace(1e-4, 1e-2, 10)
"""Learning rates of the trials, in turn."""


class _Timm:
    """The whole network in every pass, as timm's own examples do; frozen up to the head."""

    def __init__(self, transfer: TransferLearner) -> None:
        self.transfer = transfer
        backbone = transfer.backbone
        self.network = backbone.copy().eval().requires_grad_(False)
        self.head: nn.Module = self.network.get_classifier()  # type: ignore[operator]
        self.images = {
            split: network_input(
                unit_images(transfer.dataset.images(transfer.dataset.splits[split])),
                backbone.preprocessing,
            )
            for split in ("train", "valid")
        }
        self.labels = torch.from_numpy(transfer.labels("train"))

    @torch.no_grad()
    def passed(self) -> None:
        """Runs `forward_features` on the training images."""
        for images in self.images["train"].split(PASS_BATCH):
            with autocast(self.transfer.device, self.transfer.precision):
                self.network.forward_features(images)  # type: ignore[operator]

    def train(self, lr: float, epochs: int) -> None:
        """Trains the head and scores the validation images after each epoch."""
        self.head.requires_grad_(True)
        optimizer = torch.optim.Adam(self.head.parameters(), lr=lr)
        batch = self.transfer.settings.batch_size
        for _ in range(epochs):
            for rows in torch.randperm(len(self.labels)).split(batch):
                optimizer.zero_grad()
                loss = F.cross_entropy(self._scores(self.images["train"][rows]), self.labels[rows])
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                self._scores(self.images["valid"])

    def _scores(self, images: Tensor) -> Tensor:
        with autocast(self.transfer.device, self.transfer.precision):
            scores: Tensor = self.network(images)
        return scores.float()


def measured(
    dataset: Dataset,
    size: int,
    architecture: str,
    pairs: int,
    trials: int,
    plain: int,
    settings: TrainSettings,
) -> Iterator[str]:
    """Yields the seconds of both sides, and their ratios.

    Args:
        dataset: images and labels.
        size: side of the images in pixels.
        architecture: `timm:NAME`, with random weights.
        pairs: passes of each side, after one of each that is not counted.
        trials: trainings of a head on cached features.
        plain: how many of as many plain trainings are run; the others are taken to cost the same.
        settings: of the trainings.
    """

    def learner(number: int) -> TransferLearner:
        network = build(architecture, len(dataset.classes), size, seed=number)
        expected = load_weights(network, architecture, "random").preprocessing
        expected = dataclasses.replace(expected, image_size=size)
        return TransferLearner(
            Backbone(architecture, "random", network, expected), dataset, settings
        )

    def kept(transfer: TransferLearner) -> Callable[[], object]:
        network = transfer.backbone.copy()
        halves = cut(network, resolve(network, architecture, "head"), transfer.image_size)
        # the pass is made when the first batch is asked for
        loader = transfer.feed(halves, "train", None)
        return lambda: loader.batch(np.arange(1), 1)

    count = len(dataset.splits["train"])
    ours, theirs = [], []
    for number in range(pairs + 1):
        transfer = learner(number)
        ours.append(_seconds(kept(transfer)) / count)
        theirs.append(_seconds(_Timm(transfer).passed) / count)
    ratios = np.divide(ours[1:], theirs[1:])
    yield (
        f"frozen pass of {architecture} at {size} px, {settings.precision}, {count} "
        f"images, {pairs} pairs: medtl {_spread(ours[1:])}, timm {_spread(theirs[1:])} s an image; "
        f"ratio {_spread(ratios)}"
    )
    transfer = learner(pairs + 1)
    rates = [float(rate) for rate in np.resize(RATES, trials)]
    recipes = [transfer.recipe("adam", rate) for rate in rates]
    ours = [_seconds(partial(transfer.train, "head", recipe)) for recipe in recipes]
    timm_side = _Timm(transfer)
    theirs = [_seconds(partial(timm_side.train, rate, settings.epochs)) for rate in rates[:plain]]
    whole = float(np.mean(theirs)) * trials
    yield (
        f"{trials} trainings of a head, {settings.epochs} epochs each: medtl {sum(ours):.1f} s "
        f"with the pass, {_spread(ours[1:])} s each after the first; plain timm {whole:.1f} s "
        f"({plain} of {trials} measured); ratio {whole / sum(ours):.0f}"
    )


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _spread(values: Iterable[float]) -> str:
    low, middle, high = np.quantile(list(values), (0, 0.5, 1))
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


@click.command()
@click.option("--architecture", default="timm:vit_small_patch14_dinov2", show_default=True)
@click.option("--size", default=224, help="side of the images in pixels")
@click.option("--patients", default=40, help="of the phantoms, about three images each")
@click.option("--pairs", default=5, help="passes of each side")
@click.option("--trials", default=10, help="trainings of a head")
@click.option("--plain", default=10, help="plain trainings that are run")
@click.option("--epochs", default=5, help="epochs a training")
@click.option("--precision", type=click.Choice(("auto", "float32", "bf16")), default="auto")
@click.option("--threads", default=1, help="of both sides")
def backbone(
    architecture: str,
    size: int,
    patients: int,
    pairs: int,
    trials: int,
    plain: int,
    epochs: int,
    precision: str,
    threads: int,
) -> None:
    """Times the frozen pass beside timm's forward_features, and trials of a head."""
    torch.set_num_threads(threads)
    settings = TrainSettings(
        epochs=epochs,
        patience=epochs,
        augment="none",
        keep="always",
        precision=resolve_precision(precision, resolve_device("cpu")),
        device="cpu",
    )
    with tempfile.TemporaryDirectory() as root:
        os.environ["MEDTL_CACHE"] = str(Path(root, "cache"))
        write_chest_phantoms(Path(root), patients=patients, image_size=size)
        dataset = load(str(Path(root, "labels.csv")), size, seed=0)
        for line in measured(dataset, size, architecture, pairs, trials, plain, settings):
            print(line, flush=True)
