"""Costs of a trial, measured on this machine before a search: seconds of the parts it repeats."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import nn

from medtl.blas import one_blas_thread
from medtl.networks.cutoffs import resolve
from medtl.networks.partition import cut
from medtl.training.device import OutOfMemoryError, autocast, enough_memory
from medtl.training.learner import TransferLearner
from medtl.training.linear_head import linear_layer
from medtl.training.loaders import ComputedLoader
from medtl.training.loop import build_optimizer
from medtl.training.lora import adapted
from medtl.training.training_thread import run_in_own_thread
from medtl.tuning.search_space import HybridSpace, OneSpace

STEP = 5  # forward passes that a training step is taken to cost before it is measured
LIMIT = 0.5  # seconds of a measured step; its batch is made smaller to keep it, as this predicts
FEWEST = 4  # images of a measured step, where there are as many
STEPS = 3  # measured after one that is not
LEARNING_RATE = 1e-4
SOLVED_IMAGES = 1000  # images whose products are measured


@dataclass(frozen=True)
class TrialCosts:
    """Seconds on this machine.

    Attributes:
        forward: forward pass of the whole network on an image, without gradients.
        reading: an image of the training split, read and augmented.
        step: forward and backward pass of the part from `cutoff` on, an image.
        update: update of the weights of this part by the optimizer, a step.
        product: both products of an iteration of the solver of linear heads, an image.
        cutoff: name of the layer.
    """

    forward: float
    reading: float = 0.0
    step: float = 0.0
    update: float = 0.0
    product: float = 0.0
    cutoff: str = ""


def costs_of(transfer: TransferLearner, space: OneSpace, forward: float) -> TrialCosts:
    """Measures training steps on a copy of the network, from the first cut-off of a space on.

    Weights, caches and random states are unchanged. A batch that would take long is measured with
    fewer images; without the memory for it, a step is taken to cost some forward passes.

    Args:
        transfer: network and data.
        space: of the search.
        forward: measured seconds of a forward pass, an image.
    """
    if isinstance(space, HybridSpace):
        return TrialCosts(forward)
    cutoff, optimizer = space.cutoffs[0], space.optimizers[0]
    images = min(transfer.settings.batch_size, len(transfer.labels("train")))
    rows = np.arange(min(images, max(FEWEST, int(LIMIT / (STEP * forward)))))

    def measured(report: Callable[[None], None]) -> tuple[float, float, float]:
        with enough_memory(len(rows), transfer.image_size):
            return _step_seconds(transfer, cutoff, optimizer, rows)

    try:
        # as a training: a lack of memory on the CPU must not outlive its thread
        own_thread = transfer.device.type == "cpu"
        reading, step, update = (
            run_in_own_thread(measured, lambda _: None) if own_thread else measured(lambda _: None)
        )
    except OutOfMemoryError:
        reading, step, update = 0.0, STEP * forward, 0.0
    backbone = transfer.backbone
    findings = transfer.labels("valid").ndim == 2
    product = _product_seconds(
        backbone.copy(), backbone.architecture, transfer.image_size, findings
    )
    return TrialCosts(forward, reading, step, update, product, cutoff)


def _step_seconds(
    transfer: TransferLearner, cutoff: str, optimizer: str, rows: np.ndarray
) -> tuple[float, float, float]:
    """Returns the seconds of reading an image, of passes on an image, and of an update."""
    backbone, device, settings = transfer.backbone, transfer.device, transfer.settings
    network = backbone.copy().to(device)
    divided = cut(network, resolve(network, backbone.architecture, cutoff), transfer.image_size)
    loader = ComputedLoader(
        source=transfer.dataset,
        indices=transfer.dataset.splits["train"],
        prefix=divided.prefix,
        preprocessing=backbone.preprocessing,
        augmentation=transfer.augmentation,
        seed=settings.seed,
        precision=transfer.precision,
        device=device,
    )
    rank = settings.lora_rank if settings.transfer == "lora" else 0
    lora = adapted(network, divided.suffix, rank, settings.seed) if rank else nullcontext()
    parts: list[tuple[float, float, float]] = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), lora:
        suffix = divided.suffix.to(memory_format=torch.channels_last).train()
        update = build_optimizer(optimizer, suffix, LEARNING_RATE, settings.weight_decay)
        for _ in range(1 + STEPS):
            began = _now(device)
            loader.inputs(rows, 1)
            read = _now(device)
            inputs = loader.batch(rows, 1)
            computed = _now(device)
            with autocast(device, transfer.precision):
                logits = suffix(*inputs)
            update.zero_grad(set_to_none=True)
            logits.float().square().mean().backward()
            passed = _now(device)
            update.step()
            parts.append((read - began, passed - computed, _now(device) - passed))
    # the first step also allocates memory and compiles kernels
    reading, passes, updating = (median(each) for each in zip(*parts[1:], strict=True))
    return reading / len(rows), passes / len(rows), updating


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@one_blas_thread  # as the solver
def _product_seconds(
    network: nn.Module, architecture: str, image_size: int, findings: bool
) -> float:
    """Returns the seconds of both products of an iteration of the solver, an image."""
    layer = linear_layer(cut(network, resolve(network, architecture, "head"), image_size).suffix)
    if layer is None:
        return 0.0
    # two classes have one score; findings are solved one by one
    columns = 1 if findings or layer.out_features == 2 else layer.out_features
    features = np.ones((SOLVED_IMAGES, layer.in_features))
    weight = np.ones((layer.in_features, columns))
    seconds = []
    for _ in range(1 + STEPS):
        began = time.perf_counter()
        features.T @ (features @ weight)
        seconds.append(time.perf_counter() - began)
    repeats = layer.out_features if findings else 1
    return repeats * median(seconds[1:]) / SOLVED_IMAGES
