"""Training loop: optimizer, schedule, epochs, restoring the best epoch."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from medtl.errors import MedtlError
from medtl.training.augmentation import USUAL
from medtl.training.checkpoints import Checkpoint
from medtl.training.compiled_step import CUDA_GRAPHS, INDUCTOR, NONE, ReplayedStep, Step, compiled
from medtl.training.device import autocast
from medtl.training.distributed import SINGLE_PROCESS, SingleProcess
from medtl.training.loaders import PASS_BATCH, Loader
from medtl.training.losses import draw_chances, objective, valid_scores
from medtl.training.resident import to_device


def build_optimizer(
    name: str,
    trained: nn.Module,
    lr: float,
    weight_decay: float,
    shares: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """Builds the optimizer of `trained`, without weight decay of biases and norms (1-D).

    `shares` are those of `lr` by name of the parameter, 1 where there is none.
    """
    parameters = [each for each in trained.named_parameters() if each[1].requires_grad]
    by_share: dict[float, list[nn.Parameter]] = {}
    for path, parameter in parameters:
        by_share.setdefault((shares or {}).get(path, 1.0), []).append(parameter)
    groups = [
        {"params": [p for p in own if (p.ndim > 1) == decayed], "lr": lr * share,
         "weight_decay": weight_decay if decayed else 0.0}
        for share, own in by_share.items()
        for decayed in (True, False)
    ]  # fmt: skip
    groups = [group for group in groups if group["params"]]
    # fused: one pass over each parameter in place of ten; PyTorch has no fused RMSprop
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr, fused=True)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True, fused=True)
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, lr=lr)
    raise ValueError(name)


@dataclass(frozen=True)
class TrainConfig:
    """Hyperparameters of one training."""

    optimizer: str
    lr: float
    weight_decay: float
    epochs: int  # the most that are trained; 0 for the budget of the cut-off
    patience: int  # epochs without a better validation AUROC before stopping; 0 for a quarter
    batch_size: int
    balance: str  # none, loss, sampler
    seed: int
    precision: str  # float32, bf16
    layer_decay: float = 1.0  # learning rate of a block as a share of that of the block after it
    lora_rank: int = 0  # of adapters, which are trained with the head; 0 trains all layers
    augment: str = USUAL  # name in `medtl.training.augmentation.AUGMENTATIONS`


@dataclass(frozen=True)
class Epoch:
    """Losses and validation scores of one epoch."""

    number: int  # from 1
    train_loss: float
    valid_loss: float
    valid_accuracy: float
    valid_auroc: float  # macro, one against the rest; of findings, those with both classes
    valid_f1: float  # macro
    seconds: float
    progress: float  # number of this epoch as a share of the most epochs, 0 to 1

    def metrics(self) -> dict[str, float]:
        """Returns the values of the epoch by their MLflow names."""
        return {
            "train_loss": self.train_loss,
            "valid_loss": self.valid_loss,
            "valid_accuracy": self.valid_accuracy,
            "valid_auroc": self.valid_auroc,
            "valid_f1": self.valid_f1,
            "epoch_seconds": self.seconds,
        }


@dataclass(frozen=True)
class TrainResult:
    """A finished training; the suffix holds the weights of the best epoch."""

    epochs: tuple[Epoch, ...]
    best: Epoch
    valid_logits: np.ndarray  # float32 [N_valid, K], of the best epoch


class Stopped(Exception):
    """Raised by `on_epoch` to end a training for good: a trial that falls behind the others."""


@dataclass
class _TrainState:
    """State of a training: everything that its next epoch depends on, but for seed and number."""

    suffix: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    epochs: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    best_state: dict[str, Tensor] = field(default_factory=dict)
    best_logits: np.ndarray = field(default_factory=lambda: np.empty(0))

    def add(self, epoch: Epoch, valid_logits: np.ndarray) -> None:
        """Records an epoch, and copies the weights if it is the best so far."""
        self.epochs.append(epoch)
        if self.best is None or epoch.valid_auroc > self.best.valid_auroc:
            self.best, self.best_logits = epoch, valid_logits
            state = self.suffix.state_dict()
            self.best_state = {name: value.clone() for name, value in state.items()}

    def is_over(self, recipe: TrainConfig) -> bool:
        """Returns whether the training has ended, by its epochs or its patience."""
        done = len(self.epochs)
        stale = self.best is not None and done - self.best.number >= recipe.patience
        return stale or done >= recipe.epochs

    def state(self) -> dict:
        """Returns the state as tensors and numbers."""
        return {
            "suffix": self.suffix.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            **self.end(),
        }

    def end(self) -> dict:
        """Returns the part of the state that a finished training needs."""
        return {
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "best": self.best_epoch.number,
            "best_state": self.best_state,
            "best_logits": torch.from_numpy(self.best_logits),
        }

    @property
    def best_epoch(self) -> Epoch:
        """Best epoch; there is one after the first `add`."""
        assert self.best is not None
        return self.best

    def restore(self, state: dict) -> None:
        """Restores the result of `state` or `end` of an equal training."""
        if "suffix" in state:
            self.suffix.load_state_dict(state["suffix"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
        self.epochs = [Epoch(**each) for each in state["epochs"]]
        self.best = self.epochs[state["best"] - 1]
        self.best_state = state["best_state"]
        self.best_logits = state["best_logits"].numpy()


def fit(
    suffix: nn.Module,
    train: Loader,
    train_labels: np.ndarray,
    valid: Loader,
    valid_labels: np.ndarray,
    recipe: TrainConfig,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    checkpoint: Checkpoint | None = None,
    team: SingleProcess = SINGLE_PROCESS,
    shares: Mapping[str, float] | None = None,
    compile: str = NONE,
) -> TrainResult:
    """Trains `suffix` in place and leaves it at its best epoch by validation AUROC.

    `shares` are those of the learning rate by name of the parameter, 1 where there is none.
    `compile` names what makes the steps on a GPU faster, see `medtl.training.compiled_step`;
    several processes launch each kernel where it is `cudagraphs`.

    `train_labels` are int [N], int8 [N, K] of findings, or shares of readers, float32 [N, K].

    Each process of a `team` calls this with its own loaders and the labels of all rows, and ends
    with the same weights, curves and scores.

    `on_epoch` is called after each epoch and may raise `Stopped` to end the training.
    Dropout draws from torch's global generator, which is seeded in each epoch and restored
    afterwards: a training resumed from its checkpoint gives the same bits as an uninterrupted one.
    After resuming, `on_epoch` is called again for the earlier epochs.

    Raises:
        MedtlError: the loss is no longer a finite number.
    """
    device = next(suffix.parameters()).device
    minimised = objective(train_labels, valid_labels, recipe.balance, device)
    optimizer = build_optimizer(recipe.optimizer, suffix, recipe.lr, recipe.weight_decay, shares)
    batches = max(1, len(train) // recipe.batch_size)
    steps = recipe.epochs * batches
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(warmed_up_cosine, steps=steps))
    course = _TrainState(suffix, optimizer, schedule)
    if checkpoint is not None and (state := checkpoint.found()) is not None:
        course.restore(state)
        if team.rank == 0:
            done = len(course.epochs)
            if course.is_over(recipe):
                print(f"note: a finished training of {done} epochs is reused", file=sys.stderr)
            else:
                print(f"note: resumes a training after epoch {done}", file=sys.stderr)
    for epoch in course.epochs:
        on_epoch(epoch)
    joined = team.joined(suffix)
    forward = compiled(joined) if compile == INDUCTOR else joined

    def launched(inputs: tuple[Tensor, ...], labels: Tensor, rows: np.ndarray) -> Tensor:
        with autocast(device, recipe.precision):
            logits = forward(*inputs)
        loss = team.loss(minimised, logits.float(), labels, rows)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    step: Step = launched
    if compile == CUDA_GRAPHS and team.size == 1:
        step = ReplayedStep(launched, suffix, optimizer)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        while not course.is_over(recipe):
            number = len(course.epochs) + 1
            started = time.perf_counter()
            torch.manual_seed(_mixed(recipe.seed, number, team.rank))
            suffix.train()
            # summed on the device: a value that is read in each step makes a GPU wait
            total, seen = torch.zeros((), dtype=torch.float64, device=device), 0
            for rows in _batches(train_labels, recipe, number):
                labels = to_device(train_labels[rows], device)
                loss = step(train.batch(rows, number), labels, rows)
                schedule.step()
                total += loss.double() * len(rows)
                seen += len(rows)
            valid_logits = predict(suffix, valid, recipe.precision, team)
            train_loss = team.mean(total.item()) / seen
            share = number / recipe.epochs
            epoch = measured_epoch(number, share, train_loss, valid_logits, valid_labels, started)
            course.add(epoch, valid_logits)
            on_epoch(epoch)
            if checkpoint is not None and not course.is_over(recipe):
                checkpoint.keep(number, course.state)
    if checkpoint is not None:
        checkpoint.end(len(course.epochs), course.end, course.best_epoch.valid_auroc)
    suffix.load_state_dict(course.best_state)
    suffix.eval()
    return TrainResult(tuple(course.epochs), course.best_epoch, course.best_logits)


@torch.no_grad()
def predict(
    suffix: nn.Module,
    feed: Loader,
    precision: str = "float32",
    team: SingleProcess = SINGLE_PROCESS,
) -> np.ndarray:
    """Computes logits float32 [N, K] of all rows of a loader, with `suffix` in evaluation mode."""
    suffix.eval()
    device = next(suffix.parameters()).device
    logits = []
    for start in range(0, len(feed), PASS_BATCH):
        rows = np.arange(start, min(start + PASS_BATCH, len(feed)))
        with autocast(device, precision):
            logits.append(suffix(*feed.batch(rows, epoch=1)).float())
    return team.all_gather(torch.cat(logits).cpu(), len(feed)).numpy()


def warmed_up_cosine(step: int, steps: int) -> float:
    """Returns the share of the learning rate at a step (from 0) of `steps`.

    Rises linearly for a quarter of the steps (Goyal et al. 2017, arXiv 1706.02677; the length is
    ours), then falls to 0 as a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983).

    >>> [round(warmed_up_cosine(step, 8), 2) for step in range(8)]
    [0.33, 0.67, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07]
    """
    rising = steps // 4
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def measured_epoch(
    number: int,
    progress: float,
    train_loss: float,
    logits: np.ndarray,
    labels: np.ndarray,
    started: float,
) -> Epoch:
    """Measures an epoch: logits [N, K] of the validation split; `started` by `perf_counter`.

    Raises:
        MedtlError: a loss is not a finite number.
    """
    found = valid_scores(logits, labels)
    if not np.isfinite(train_loss) or not np.isfinite(found["valid_loss"]):
        raise MedtlError(
            f"the loss is not a finite number in epoch {number} "
            f"(train {train_loss}, valid {found['valid_loss']}); lower the learning rate"
        )
    seconds = time.perf_counter() - started
    return Epoch(number, train_loss, **found, seconds=seconds, progress=progress)


def _batches(labels: np.ndarray, recipe: TrainConfig, epoch: int) -> Iterator[np.ndarray]:
    """Yields shuffled rows. Drops the incomplete last batch: batch norm needs full ones."""
    generator = np.random.default_rng([recipe.seed, epoch])
    if recipe.balance == "sampler":
        order = generator.choice(len(labels), len(labels), p=draw_chances(labels))
    else:
        order = generator.permutation(len(labels))
    size = min(recipe.batch_size, len(order))
    for start in range(0, len(order) - size + 1, size):
        yield order[start : start + size]


def _mixed(seed: int, number: int, rank: int) -> int:
    # trailing zeros have no effect: rank 0 draws as a single process does
    return int(np.random.SeedSequence([seed, number, rank]).generate_state(1)[0])
