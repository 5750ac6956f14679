"""Transfer learner: one backbone, cut at a layer, trained on one data set."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import InitVar, dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import nn

from medtl.cache import content_key, digest_of
from medtl.data.dataset import Dataset
from medtl.errors import MedtlError, ParameterError
from medtl.inference.sklearn_head import SklearnHead
from medtl.inference.training_record import TrainingRecord
from medtl.networks.cutoffs import resolve
from medtl.networks.flops import operations
from medtl.networks.partition import Cut, cut
from medtl.networks.pooled_features import pooled
from medtl.networks.pretrained import Backbone
from medtl.settings.training import AUTO, ModelSettings
from medtl.training.activation_cache import ActivationCache
from medtl.training.augmentation import AUGMENTATIONS, USUAL, Augmentation
from medtl.training.checkpoints import CheckpointHold
from medtl.training.classical_head import ClassicalHead, select_classical_head
from medtl.training.compiled_step import NONE
from medtl.training.device import (
    OutOfMemoryError,
    enough_memory,
    give_back_freed_memory,
    resolve_device,
    resolve_precision,
    reuse_freed_memory,
)
from medtl.training.distributed import SINGLE_PROCESS, SingleProcess
from medtl.training.epoch_budget import Budget, usual_patience
from medtl.training.layer_decay import rate_shares
from medtl.training.linear_head import (
    FEW_IMAGES,
    MOST_VERSIONS,
    LinearHead,
    better,
    linear_layer,
    solve,
    solve_with_views,
    weighted_rows,
)
from medtl.training.loaders import PASS_BATCH, CachedLoader, ComputedLoader, Loader, SubsetLoader
from medtl.training.loop import (
    Epoch,
    Stopped,
    TrainConfig,
    TrainResult,
    fit,
    measured_epoch,
    predict,
)
from medtl.training.lora import adapted, attention_weights
from medtl.training.losses import train_loss
from medtl.training.training_thread import run_in_own_thread


@dataclass(frozen=True)
class Trained:
    """A network trained from a cut on; `network` is whole, `cut` shares its parameters."""

    network: nn.Module
    cut: Cut
    fit: TrainResult
    classical: ClassicalHead | None = None  # of a hybrid, in place of the suffix
    halved: int | None = None  # batch size after a lack of memory
    solved: LinearHead | None = None  # linear head solved without gradient training
    config: TrainConfig | None = None  # resolved hyperparameters of a training by gradient

    @property
    def tail(self) -> SklearnHead | None:
        """The classical classifier of a hybrid, None where the suffix answers."""
        return None if self.classical is None else self.classical.head


@dataclass
class TransferLearner:
    """A backbone and a data set, from which any number of models are trained.

    The activations at a cut are computed once for each image and view, and shared by all models
    and by all learners with the same activation cache.

    Attributes:
        rows: indices into the training split of the images to train on, None for all; None if
            `team` has several processes.
        view_seed: seed of the augmented views, None for the settings' seed. Learners with the same
            `view_seed` share their cached views.
        seen_before: training records of the backbone itself, None if unknown.
        team: processes that train each model together, from equal learners.
        pool: samples whose activations are computed together, ascending, None for each split alone.
            Learners with the same pool, which covers all their splits, share them. Of the training
            images it decides the augmented views.
    """

    backbone: Backbone
    dataset: Dataset
    settings: ModelSettings
    rows: np.ndarray | None = None
    view_seed: int | None = None
    shared: InitVar[ActivationCache | None] = None
    seen_before: tuple[TrainingRecord, ...] | None = ()
    team: SingleProcess = SINGLE_PROCESS
    pool: np.ndarray | None = None
    device: torch.device = field(init=False)
    precision: str = field(init=False)
    activation_cache: ActivationCache = field(init=False)

    def __post_init__(self, shared: ActivationCache | None) -> None:
        self.device = resolve_device(self.team.device(self.settings.device))
        self.precision = resolve_precision(self.settings.precision, self.device)
        if self.device.type == "cpu":
            reuse_freed_memory()
            if self.settings.compile != NONE:
                print("note: compile is for GPUs, and has no effect here", file=sys.stderr)
        self.activation_cache = shared or ActivationCache(
            self.backbone, self.dataset.fingerprint, self.settings.keep
        )

    @property
    def image_size(self) -> int:
        """Side of the square input, in pixels."""
        return self.backbone.preprocessing.image_size

    @property
    def augmentation(self) -> Augmentation | None:
        """Augmentation of training images; with `augment=auto` the usual one."""
        return AUGMENTATIONS[self.augment]

    @property
    def augment(self) -> str:
        """Name of this augmentation."""
        return USUAL if self.settings.augment == AUTO else self.settings.augment

    def recipe(self, optimizer: str, lr: float) -> TrainConfig:
        """Returns the settings' recipe with this optimizer and learning rate."""
        settings = self.settings
        return TrainConfig(
            optimizer=optimizer,
            lr=lr,
            weight_decay=settings.weight_decay,
            epochs=settings.epochs,
            patience=settings.patience,
            batch_size=settings.batch_size,
            balance=settings.balance,
            seed=settings.seed,
            precision=self.precision,
            layer_decay=settings.layer_decay,
            lora_rank=settings.lora_rank if settings.transfer == "lora" else 0,
            augment=self.augment,
        )

    def train(
        self,
        cutoff: str,
        recipe: TrainConfig,
        on_epoch: Callable[[Epoch], None] = lambda epoch: None,
        ends: CheckpointHold | None = None,
    ) -> Trained:
        """Trains a copy of the backbone from `cutoff` on; earlier layers stay frozen.

        With `epochs=0`, a suffix of one linear layer is solved to its optimum instead, whatever the
        recipe; any other is trained for the budget of its cut-off.

        An equal interrupted training is resumed, and `on_epoch` is called for all its epochs. The
        result of a completed one is reused if its run failed later and passed `ends`. If memory is
        insufficient, a single process retries once with half the batch.

        Raises:
            MedtlError: the loss is no longer a finite number.
            OutOfMemoryError: memory is insufficient for half the batch, too.
        """

        def trained(recipe: TrainConfig, report: Callable[[Epoch], None]) -> Trained:
            network = self.backbone.copy().to(self.device)
            return self._train_on(network, cutoff, recipe, report, ends)

        return self._within_memory(trained, recipe, on_epoch)

    def train_in_two_stages(
        self,
        cutoff: str,
        recipe: TrainConfig,
        on_epoch: Callable[[Epoch], None] = lambda epoch: None,
        ends: CheckpointHold | None = None,
    ) -> Trained:
        """Trains the head first, then from `cutoff` on (Trinh & Nguyen 2021, and common practice).

        Each stage has the recipe's epochs, or its own budget; `on_epoch` is called for the second.
        A training that was interrupted in its second stage is resumed there if `ends` holds its
        head. Memory and errors are as in `train`.
        """

        def trained(recipe: TrainConfig, report: Callable[[Epoch], None]) -> Trained:
            network = self.backbone.copy().to(self.device)
            of_head = dataclasses.replace(recipe, lora_rank=0)
            self._train_on(network, "head", of_head, lambda epoch: None, ends)
            return self._train_on(network, cutoff, recipe, report, ends)

        return self._within_memory(trained, recipe, on_epoch)

    def train_hybrid(self, cutoff: str) -> Trained:
        """Fits the settings' classical classifier to the pooled features before layer `cutoff`.

        No image is augmented. The first layer has no features before it. The classifier's own
        setting (see `classical_head.CLASSIFIER_SETTINGS`) is selected on validation.

        Raises:
            ParameterError: `cutoff` is the first layer, or the classifier's settings are wrong.
        """
        started = time.perf_counter()
        network = self.backbone.copy().to(self.device)
        point = resolve(network, self.backbone.architecture, cutoff)
        if point.key == (0,):
            raise ParameterError("cutoff", cutoff, "a later layer where transfer=hybrid")
        divided = cut(network, point, self.image_size)
        train, valid = (self.features(divided, split) for split in ("train", "valid"))
        settings = self.settings
        rows, labels, weights = weighted_rows(self.targets(), settings.balance)
        valid_labels = self.labels("valid")
        classical = select_classical_head(
            settings.classifier,
            settings.pca,
            train,
            labels,
            valid,
            valid_labels,
            settings.balance,
            settings.seed,
            None if weights is None else (rows, weights),
        )
        loss = train_loss(classical.head.logits(train), self.targets(), multi_label=False)
        epoch = measured_epoch(1, 1.0, loss, classical.valid_logits, valid_labels, started)
        fitted = TrainResult((epoch,), epoch, classical.valid_logits)
        return Trained(network, divided, fitted, classical=classical)

    def logits(self, trained: Trained, split: str) -> np.ndarray:
        """Computes logits float32 [N, K] of a split from the cached activations at the cut."""
        if trained.tail is not None:
            return trained.tail.logits(self.features(trained.cut, split))
        feed = self.feed(trained.cut, split, None)
        return predict(trained.cut.suffix, feed, self.precision, self.team)

    def labels(self, split: str) -> np.ndarray:
        """Returns the labels of the images of a split that are used, int64 [N]."""
        labels = self.dataset.labels[self.dataset.splits[split]]
        return labels if self.rows is None or split != "train" else labels[self.rows]

    def targets(self) -> np.ndarray:
        """Returns what training fits: the labels of `train`, or the shares of readers.

        Of N images int64 [N], int8 [N, K] of findings, or float32 [N, K] (see `Dataset.shares`).
        """
        if self.dataset.shares is None:
            return self.labels("train")
        shares = self.dataset.shares[self.dataset.splits["train"]]
        return shares if self.rows is None else shares[self.rows]

    def features(self, divided: Cut, split: str, view: int = 0) -> np.ndarray:
        """Computes pooled features float32 [N, F] at a cut, of an augmented view; 0 for none."""
        feed = self.feed(divided, split, self.augmentation if view else None)
        starts = range(0, len(feed), PASS_BATCH)
        batches = (np.arange(at, min(at + PASS_BATCH, len(feed))) for at in starts)
        parts = [pooled(feed.batch(rows, max(view, 1))).cpu().numpy() for rows in batches]
        return np.concatenate(parts)

    def feed(self, divided: Cut, split: str, augmentation: Augmentation | None) -> Loader:
        """Returns the activations at the cut of a split's used images; cached where that pays."""
        indices = self.dataset.splits[split]
        rows = self.rows if split == "train" else None
        if self.pool is not None:
            places = np.searchsorted(self.pool, indices)
            rows = places if rows is None else places[rows]
        fresh = ComputedLoader(
            source=self.dataset,
            indices=indices if self.pool is None else self.pool,
            prefix=divided.prefix,
            preprocessing=self.backbone.preprocessing,
            augmentation=augmentation,
            seed=self.settings.seed if self.view_seed is None else self.view_seed,
            precision=self.precision,
            device=self.device,
            team=self.team,
        )
        views = 1 if augmentation is None else self.settings.views
        feed = CachedLoader(
            fresh, lambda view: self.activation_cache.kept(divided, fresh, view, views), views
        )
        return feed if rows is None else SubsetLoader(feed, rows)

    def _within_memory(
        self,
        trained: Callable[[TrainConfig, Callable[[Epoch], None]], Trained],
        recipe: TrainConfig,
        on_epoch: Callable[[Epoch], None],
    ) -> Trained:
        """Trains by the recipe, or with half its batch if memory runs out."""

        def attempt(recipe: TrainConfig) -> Trained:
            if self.device.type != "cpu" or self.team.size > 1:
                return trained(recipe, on_epoch)
            return run_in_own_thread(lambda report: trained(recipe, report), on_epoch)

        size = min(recipe.batch_size, len(self.labels("train")))
        half = size // 2
        try:
            return attempt(recipe)
        except OutOfMemoryError:
            # the other processes of a group are in the middle of a batch
            if not half or self.team.size > 1:
                raise
        print(f"note: memory is short for batches of {size}; trained with {half}", file=sys.stderr)
        give_back_freed_memory()
        made = attempt(dataclasses.replace(recipe, batch_size=half))
        return dataclasses.replace(made, halved=half)

    def _train_on(
        self,
        network: nn.Module,
        cutoff: str,
        recipe: TrainConfig,
        on_epoch: Callable[[Epoch], None],
        ends: CheckpointHold | None,
    ) -> Trained:
        point = resolve(network, self.backbone.architecture, cutoff)
        divided = cut(network, point, self.image_size)
        if recipe.lora_rank and not attention_weights(network, divided.suffix):
            raise ParameterError("transfer", "lora", f"finetune: no attention from {cutoff} on")
        if self.settings.epochs == 0 and self.team.size == 1:
            layer = linear_layer(divided.suffix)
            if layer is not None:
                return self._solved(network, divided, layer, on_epoch)
        recipe = self._with_budget(recipe, divided)
        divided.suffix.to(memory_format=torch.channels_last)
        checkpoint = self.team.checkpoint(self._training_key(divided, recipe), ends)
        decay = recipe.layer_decay
        shares = None if decay == 1 else rate_shares(network, decay)
        try:
            rank = recipe.lora_rank
            lora = adapted(network, divided.suffix, rank, recipe.seed) if rank else nullcontext()
            with lora, enough_memory(recipe.batch_size, self.image_size):
                fitted = fit(
                    divided.suffix,
                    self.feed(divided, "train", AUGMENTATIONS[recipe.augment]),
                    self.targets(),
                    self.feed(divided, "valid", None),
                    self.labels("valid"),
                    recipe,
                    on_epoch,
                    checkpoint,
                    self.team,
                    shares,
                    self.settings.compile if self.device.type == "cuda" else NONE,
                )
        except (Stopped, MedtlError):
            checkpoint.drop()
            raise
        return Trained(network, divided, fitted, config=recipe)

    def _with_budget(self, recipe: TrainConfig, divided: Cut) -> TrainConfig:
        """Returns the recipe with the epochs and patience of the cut-off where it leaves them."""
        if recipe.epochs:
            patience = recipe.patience or usual_patience(recipe.epochs)
            return dataclasses.replace(recipe, patience=patience)
        steps = max(1, len(self.labels("train")) // recipe.batch_size)
        budget = Budget.of(self.trained_share(divided), steps)
        patience = recipe.patience or budget.patience
        return dataclasses.replace(recipe, epochs=budget.epochs, patience=patience)

    def trained_share(self, divided: Cut) -> float:
        """Returns the operations from a cut on, as a share of those of the whole network."""
        if divided.point.key == (0,):
            return 1.0
        return operations(divided.suffix, divided.shapes) / self._operations

    @cached_property
    def _operations(self) -> int:
        channels = 3 * max(1, len(self.dataset.modalities))
        images = (channels, self.image_size, self.image_size)
        return operations(self.backbone.network, [images])

    def _solved(
        self,
        network: nn.Module,
        divided: Cut,
        layer: nn.Linear,
        on_epoch: Callable[[Epoch], None],
    ) -> Trained:
        """Trains the linear head to its optimum, recorded as one epoch."""
        started = time.perf_counter()
        head = self.linear_head(divided)
        if count := self.head_views:
            head = self._with_views(head, divided, count)
        head.copy_to(layer)
        divided.suffix.eval()
        train, valid = (
            predict(divided.suffix, self.feed(divided, split, None), self.precision)
            for split in ("train", "valid")
        )
        loss = train_loss(train, self.targets(), self.dataset.multi_label)
        epoch = measured_epoch(1, 1.0, loss, valid, self.labels("valid"), started)
        on_epoch(epoch)
        return Trained(network, divided, TrainResult((epoch,), epoch, valid), solved=head)

    def linear_head(self, divided: Cut) -> LinearHead:
        """Fits logistic regression on the pooled features at a cut, its penalty by validation.

        Training images are not augmented.
        """
        train, valid = (self.features(divided, split) for split in ("train", "valid"))
        return solve(train, self.targets(), valid, self.labels("valid"), self.settings.balance)

    @property
    def head_views(self) -> int:
        """Number of augmented views of each image that a head is solved on beside the images."""
        images = len(self.labels("train"))
        if self.augmentation is None or (images > FEW_IMAGES and self.settings.augment != AUTO):
            return 0
        return max(0, min(self.settings.views, MOST_VERSIONS // images - 1))

    def _with_views(self, plain: LinearHead, divided: Cut, count: int) -> LinearHead:
        """Fits a linear head on augmented views too, and returns the better one on validation."""
        train, valid = (self.features(divided, split) for split in ("train", "valid"))
        views = np.stack([self.features(divided, "train", view) for view in range(1, count + 1)])
        labels = self.targets(), self.labels("valid")
        known = labels[0], valid, labels[1], self.settings.balance
        return better(plain, solve_with_views(plain, train, views, *known))

    def _training_key(self, divided: Cut, recipe: TrainConfig) -> str:
        """Hashes everything that a training depends on: equal keys give equal trainings."""
        samples = [self.dataset.splits[split] for split in ("train", "valid")]
        labels = [self.targets(), self.labels("valid")]
        rows = [each for each in (self.rows, self.pool) if each is not None]
        settings = self.settings
        return content_key(
            self.activation_cache.key,
            divided.point.key,
            # initial weights of the trained part; the seed draws those of the head
            digest_of(value.cpu().numpy() for value in divided.suffix.state_dict().values()),
            digest_of([*samples, *labels, *rows]),
            _values(recipe),
            repr(AUGMENTATIONS[recipe.augment]),
            settings.seed if self.view_seed is None else self.view_seed,
            settings.views,
            settings.keep,
            self.device.type,
            *self.team.key[1:],
        )


def _values(recipe: TrainConfig) -> tuple[object, ...]:
    """Returns the values of a recipe as keys of earlier releases have them."""
    *earlier, layer_decay, lora_rank, _ = dataclasses.astuple(recipe)
    added = (layer_decay, lora_rank)
    return tuple(earlier) if added == (1, 0) else (*earlier, *added)
