"""The expert's side: the same trials in Lightning, tuned for speed.

Mixed precision, channels-last memory, uint8 images resized as tensors, and one persistent worker
process that decodes the next batch. Every epoch still decodes every image and runs the whole
network. Nothing of medtl is imported, as on the plain side.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.plain_side import (
    BATCH,
    MEAN,
    STD,
    auroc,
    class_count,
    freeze_before,
    network_for,
    optimizer_of,
)
from benchmarks.trials import Trial

# Lightning's name of each precision
MODES: dict[str, Literal["32-true", "bf16-mixed"]] = {"float32": "32-true", "bf16": "bf16-mixed"}


@dataclass
class ExpertSide:
    """Trains one network after the other on a folder with `train/` and `valid/`."""

    folder: Path
    architecture: str
    weights: str  # imagenet or random
    size: int = 224  # side of the square input, in pixels
    seed: int = 0  # of the new head and of the order of the images
    precision: str = "float32"  # or bf16

    def prepare(self) -> None:
        """Silences Lightning's advice against a single worker, which is intended here."""
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module="lightning")

    def run(self, trial: Trial, epochs: int) -> Iterator[tuple[float, float]]:
        """Yields the validation AUROC and the seconds since the trial began after each epoch."""
        began = time.perf_counter()
        lightning.seed_everything(self.seed, verbose=False)
        train, valid = (self._loader(split) for split in ("train", "valid"))
        network = network_for(class_count(self.folder), self.architecture, self.weights)
        module = _Module(network.to(memory_format=torch.channels_last), trial, began)
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=1,
            precision=MODES[self.precision],
            max_epochs=epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(module, train, valid)
        yield from module.seen

    def _loader(self, split: str) -> DataLoader:
        steps = [
            v2.PILToTensor(),
            v2.Resize((self.size, self.size), antialias=True),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
        images = ImageFolder(str(self.folder / split), v2.Compose(steps))
        shuffled = split == "train"
        return DataLoader(images, BATCH, shuffled, num_workers=1, persistent_workers=True)


class _Module(lightning.LightningModule):
    def __init__(self, network: nn.Module, trial: Trial, began: float) -> None:
        super().__init__()
        self.network = network
        self.seen: list[tuple[float, float]] = []  # AUROC and seconds, an entry an epoch
        self._trial, self._began = trial, began
        self._norms = freeze_before(network, trial.cutoff)
        self._answers: list[tuple[Tensor, Tensor]] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer_of(self._trial, self.network)

    def on_train_epoch_start(self) -> None:
        for norm in self._norms:
            norm.eval()

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self._logits(images), labels)

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        images, labels = batch
        self._answers.append((self._logits(images).float().softmax(1).cpu(), labels.cpu()))

    def on_validation_epoch_end(self) -> None:
        probabilities, labels = (torch.cat(each) for each in zip(*self._answers, strict=True))
        self._answers.clear()
        score = auroc(labels.numpy(), probabilities.numpy())
        self.seen.append((score, time.perf_counter() - self._began))

    def _logits(self, images: Tensor) -> Tensor:
        return self.network(images.to(memory_format=torch.channels_last))
