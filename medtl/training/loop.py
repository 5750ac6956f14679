"""The one training loop: trains what comes after the cut, and restores its best epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from torch import Tensor, nn

from medtl.errors import MedtlError
from medtl.training.feeds import PASS_BATCH, Feed
from medtl.training.hardware import autocast
from medtl.training.optimizers import build_optimizer


@dataclass(frozen=True)
class Recipe:
    """How the suffix is trained."""

    optimizer: str
    lr: float
    weight_decay: float
    epochs: int
    patience: int  # epochs without a better validation AUROC before stopping
    batch_size: int
    balance: str  # none, loss, sampler
    seed: int
    precision: str  # float32, bf16


@dataclass(frozen=True)
class Epoch:
    """What one epoch showed."""

    number: int  # from 1
    train_loss: float
    valid_loss: float
    valid_accuracy: float
    valid_auroc: float  # macro, one against the rest
    valid_f1: float  # macro
    seconds: float

    def metrics(self) -> dict[str, float]:
        """The epoch's curves by their MLflow names."""
        return {
            "train_loss": self.train_loss,
            "valid_loss": self.valid_loss,
            "valid_accuracy": self.valid_accuracy,
            "valid_auroc": self.valid_auroc,
            "valid_f1": self.valid_f1,
            "epoch_seconds": self.seconds,
        }


@dataclass(frozen=True)
class Fit:
    """A finished training; the suffix holds the weights of the best epoch."""

    epochs: tuple[Epoch, ...]
    best: Epoch
    valid_logits: np.ndarray  # float32 [N_valid, K], of the best epoch


def fit(
    suffix: nn.Module,
    train: Feed,
    train_labels: np.ndarray,
    valid: Feed,
    valid_labels: np.ndarray,
    recipe: Recipe,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Fit:
    """Trains `suffix` in place and leaves it at its best epoch by validation AUROC.

    `on_epoch` is called after each epoch and may raise to stop the training (a pruned trial).
    Dropout draws from torch's global generator, which is seeded here and put back afterwards.

    Raises:
        MedtlError: the loss is no longer a finite number.
    """
    device = next(suffix.parameters()).device
    class_weights = _class_weights(train_labels, valid_labels, recipe.balance, device)
    optimizer = build_optimizer(recipe.optimizer, suffix, recipe.lr, recipe.weight_decay)
    batches = max(1, len(train) // recipe.batch_size)
    steps = recipe.epochs * batches
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(warmed_up_cosine, steps=steps))
    epochs: list[Epoch] = []
    best: Epoch | None = None
    best_state: dict[str, Tensor] = {}
    best_logits = np.empty(0)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for number in range(1, recipe.epochs + 1):
            started = time.perf_counter()
            torch.manual_seed(_mixed(recipe.seed, number))
            suffix.train()
            total, seen = 0.0, 0
            for rows in _batches(train_labels, recipe, number):
                labels = torch.from_numpy(train_labels[rows]).to(device)
                inputs = train.batch(rows, number)
                with autocast(device, recipe.precision):
                    logits = suffix(*inputs)
                loss = F.cross_entropy(logits.float(), labels, weight=class_weights)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                total, seen = total + loss.item() * len(rows), seen + len(rows)
            valid_logits = predict(suffix, valid, recipe.precision)
            epoch = measured_epoch(number, total / seen, valid_logits, valid_labels, started)
            epochs.append(epoch)
            if best is None or epoch.valid_auroc > best.valid_auroc:
                best, best_logits = epoch, valid_logits
                best_state = {name: value.clone() for name, value in suffix.state_dict().items()}
            on_epoch(epoch)
            if number - best.number >= recipe.patience:
                break
    assert best is not None
    suffix.load_state_dict(best_state)
    suffix.eval()
    return Fit(tuple(epochs), best, best_logits)


@torch.no_grad()
def predict(suffix: nn.Module, feed: Feed, precision: str = "float32") -> np.ndarray:
    """Logits float32 [N, K] of all rows of a feed, with the suffix in evaluation mode."""
    suffix.eval()
    device = next(suffix.parameters()).device
    logits = []
    for start in range(0, len(feed), PASS_BATCH):
        rows = np.arange(start, min(start + PASS_BATCH, len(feed)))
        with autocast(device, precision):
            logits.append(suffix(*feed.batch(rows, epoch=1)).float().cpu())
    return torch.cat(logits).numpy()


def warmed_up_cosine(step: int, steps: int) -> float:
    """The share of the learning rate at a step, from 0, of `steps`.

    Up in a line for a quarter of the steps (Goyal et al. 2017, arXiv 1706.02677; the length is
    ours), then down to nothing as a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983).
    """
    rising = steps // 4
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def measured_epoch(
    number: int, train_loss: float, logits: np.ndarray, labels: np.ndarray, started: float
) -> Epoch:
    """What an epoch showed: logits [N, K] of the validation split; `started` by `perf_counter`.

    Raises:
        MedtlError: a loss is not a finite number.
    """
    scores = torch.from_numpy(logits).double()
    valid_loss = F.cross_entropy(scores, torch.from_numpy(labels)).item()
    if not np.isfinite(train_loss) or not np.isfinite(valid_loss):
        raise MedtlError(
            f"the loss is not a finite number in epoch {number} "
            f"(train {train_loss}, valid {valid_loss}); lower the learning rate"
        )
    probabilities = scores.softmax(dim=1).numpy()
    predicted = probabilities.argmax(axis=1)
    binary = probabilities.shape[1] == 2
    auroc = roc_auc_score(
        labels, probabilities[:, 1] if binary else probabilities, multi_class="ovr"
    )
    return Epoch(
        number=number,
        train_loss=train_loss,
        valid_loss=valid_loss,
        valid_accuracy=float(accuracy_score(labels, predicted)),
        valid_auroc=float(auroc),
        valid_f1=float(f1_score(labels, predicted, average="macro", zero_division=0.0)),
        seconds=time.perf_counter() - started,
    )


def _batches(labels: np.ndarray, recipe: Recipe, epoch: int) -> Iterator[np.ndarray]:
    """Shuffled rows; an incomplete last batch waits for a later epoch, as batch norm prefers."""
    generator = np.random.default_rng([recipe.seed, epoch])
    if recipe.balance == "sampler":
        chances = 1.0 / np.bincount(labels)[labels]
        order = generator.choice(len(labels), len(labels), p=chances / chances.sum())
    else:
        order = generator.permutation(len(labels))
    size = min(recipe.batch_size, len(order))
    for start in range(0, len(order) - size + 1, size):
        yield order[start : start + size]


def _class_weights(
    train_labels: np.ndarray, valid_labels: np.ndarray, balance: str, device: torch.device
) -> Tensor | None:
    if balance != "loss":
        return None
    counts = np.bincount(train_labels, minlength=int(valid_labels.max()) + 1)
    weights = len(train_labels) / (len(counts) * np.maximum(counts, 1))
    return torch.tensor(weights, dtype=torch.float32, device=device)


def _mixed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
