"""Speed on one device: frozen pass, trials and full fine-tuning, each beside a peer.

Meant for a GPU; on the CPU, and small, it tests itself. The images are phantoms: the time does not
depend on what they show. Each part has a time limit, and a part that fails leaves the others.
"""

from __future__ import annotations

import resource
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import click
import numpy as np
import torch
from torch import nn

from benchmarks.device_peers import plain_trial, timm_epochs, wait
from benchmarks.large_table import Rates, large_table, measured_rates
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.networks.cutoffs import cut_points, resolve
from medtl.networks.partition import stages
from medtl.pipeline.setup import Origin, training_data
from medtl.settings.training import TrainSettings
from medtl.training.device import (
    autocast,
    give_back_freed_memory,
    resolve_device,
    resolve_precision,
)
from medtl.training.learner import TransferLearner
from medtl.training.loaders import PASS_BATCH, ComputedLoader
from medtl.training.loop import Epoch

NETWORKS = "densenet121,timm:vit_small_patch14_dinov2"
PAIRS = 3  # measurements of each side of the pass, in turn
# trials of the list: places of the cut-offs among the blocks, optimizers, learning rates
HEAD, DEEP = 1.0, 0.75
TRIALS = (
    (HEAD, "adam", 1e-3),
    (HEAD, "sgd", 1e-2),
    (0.95, "adam", 1e-3),
    (0.9, "adam", 1e-3),
    (0.9, "rmsprop", 1e-4),
    (DEEP, "adam", 1e-3),
    (0.6, "adam", 1e-3),
    (0.4, "adam", 1e-3),
    (0.2, "adam", 1e-3),
    (0.0, "adam", 1e-3),
)


@dataclass(frozen=True)
class Pair:
    """Measurement of medtl and of its peer; NaN for a peer that was not measured."""

    name: str
    medtl: float
    peer: float
    smaller_is_better: bool = False

    @property
    def line(self) -> str:
        """Line of the table; the ratio is above 1 where medtl is better."""
        name, ratio = f"  {self.name:<45}{self.medtl:>10.4g}", self.medtl / self.peer
        if np.isnan(self.peer):
            return f"{name}{'-':>10}{'-':>9}"
        return f"{name}{self.peer:>10.4g}{1 / ratio if self.smaller_is_better else ratio:>9.2f}"


class TooLong(BaseException):
    """A part of the measurement exceeds its time limit."""


@click.command()
@click.option("--networks", default=NETWORKS, help="comma list of architectures")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N")
@click.option("--size", default=224, help="side of the images in pixels")
@click.option("--patients", default=300, help="of the phantoms, about two training images each")
@click.option("--epochs", default=3, help="epochs of a training")
@click.option("--originals", default=640, help="images of 1024 pixels that are decoded")
@click.option("--minutes", default=8.0, help="of the whole measurement; parts that exceed it end")
@click.option("--compiled/--eager", default=True, help="whether timm's loop is compiled on a GPU")
def gpu(
    networks: str,
    device: str,
    size: int,
    patients: int,
    epochs: int,
    originals: int,
    minutes: float,
    compiled: bool,
) -> None:
    """Times pass, trials and full fine-tuning beside plain PyTorch and timm's loop."""
    place, names = resolve_device(device), networks.split(",")
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else "CPU"
    precision = resolve_precision("auto", place)
    print(f"{name}, PyTorch {torch.__version__}, {precision}; random weights, {size} px")
    print(f"phantoms of {patients} patients, {epochs} epochs a training")
    end, failed = time.monotonic() + 60 * minutes, 0
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_chest_phantoms(folder, patients=patients, image_size=size)
        rates = Rates()
        failed += not _part("originals", 60, end, lambda: measured_rates(rates, folder, originals))
        for number, architecture in enumerate(names):
            cache = str(folder / f"cache-{number}")
            with mock.patch.dict("os.environ", {"MEDTL_CACHE": cache}):
                left = end - time.monotonic()
                own_end = time.monotonic() + left / (len(names) - number)
                print(f"  {architecture:<45}{'medtl':>10}{'peer':>10}{'ratio':>9}")
                measured = _Network(architecture, folder, place, size, epochs, compiled)
                for part, limit in measured.parts():
                    failed += not _part(part.__name__, limit, own_end, _printed(part))
                for line in large_table(rates, measured.passed, measured.bytes, measured.trained):
                    print(line)
            del measured
            give_back_freed_memory()
    if failed:
        raise SystemExit(1)


def _part(name: str, limit: float, end: float, run: Callable[[], None]) -> bool:
    """Runs a part until its limit in seconds or until `end`; returns whether it was completed."""
    seconds = min(limit, end - time.monotonic())
    try:
        if seconds < 1:
            raise TooLong
        with _time_limit(seconds):
            run()
    except TooLong:
        print(f"  {name.strip('_')}: not completed in {max(0.0, seconds):.0f} s", flush=True)
    # a part may fail with any error, and the others are measured all the same
    except Exception as error:
        kind, reason = type(error).__name__, " ".join(str(error).split())[:300]
        print(f"  {name.strip('_')}: failed ({kind}: {reason})", flush=True)
    else:
        return True
    return False


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raises `TooLong` in the block after some seconds, where the system has such a timer."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ended(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, ended)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _printed(part: Callable[[], Iterator[Pair]]) -> Callable[[], None]:
    def run() -> None:
        for pair in part():
            print(pair.line, flush=True)

    return run


@dataclass
class _Network:
    """Measurement of one network; its parts yield the lines of the table."""

    architecture: str
    folder: Path
    device: torch.device
    size: int
    epochs: int
    compiled: bool
    passed: float = float("nan")  # images a second of the frozen pass
    bytes: float = float("nan")  # kept of an image at the head, in 16 bits
    trained: float = float("nan")  # images a second of training a head on kept activations
    _plain: dict[float, float] = field(default_factory=dict)  # seconds of a trial, by cut-off
    _timm: float = float("nan")  # images a second
    _timm_peak: float = float("nan")  # GB

    def parts(self) -> list[tuple[Callable[[], Iterator[Pair]], float]]:
        """Returns the parts, the most important first, with their time limits in seconds."""
        on_gpu = self.device.type == "cuda"
        first: list[tuple[Callable[[], Iterator[Pair]], float]] = [
            (self._frozen_pass, 40),
            (self._plain_trials, 70),
            (self._list, 60),
            (self._trials, 30),
            (self._timm_loop, 100),
            (self._all_layers, 40),
        ]
        of_gpu: list[tuple[Callable[[], Iterator[Pair]], float]] = [
            (self._replayed, 40),
            (self._compiled_layers, 100),
        ]
        return first + of_gpu if on_gpu else first

    def _learner(self, **settings: object) -> TransferLearner:
        options: dict[str, object] = {
            "data": f"{self.folder}/labels.csv",
            "architecture": self.architecture,
            "weights": "random",
            "image_size": self.size,
            "device": str(self.device),
            "epochs": self.epochs,
            "patience": self.epochs,
            "augment": "none",
        }
        made = TrainSettings(**(options | settings))  # type: ignore[arg-type]  # by name
        origin = Origin.of(made)
        return origin.transfer(training_data(made, origin.rendering), made)

    def _cutoff(self, learner: TransferLearner, place: float) -> str:
        blocks = cut_points(learner.backbone.network, "blocks")
        if place == HEAD:
            return "head"
        return "all" if not place else blocks[round(place * (len(blocks) - 1))].name

    def _frozen_pass(self) -> Iterator[Pair]:
        """Images a second from stored pixels to the head, and of the same in plain PyTorch."""
        learner = self._learner()
        device, backbone = learner.device, learner.backbone
        point = resolve(backbone.network, backbone.architecture, "head")
        (prefix,) = stages(backbone.network, [point], learner.image_size)
        prefix.to(device)
        rows = learner.dataset.splits["train"]
        pixels = ComputedLoader(
            learner.dataset, rows, nn.Identity(), backbone.preprocessing, None, 0, "float32", device
        )
        plain = backbone.copy().to(device).to(memory_format=torch.channels_last).eval()
        dtype = torch.bfloat16 if learner.precision == "bf16" else torch.float32
        plain.to(dtype)

        def ours() -> None:
            with torch.no_grad(), autocast(device, learner.precision):
                for batch in _batches(len(rows)):
                    prefix(pixels.inputs(batch, 1))

        def peer() -> None:
            with torch.inference_mode():
                for batch in _batches(len(rows)):
                    plain(pixels.inputs(batch, 1).to(dtype))

        with torch.no_grad(), autocast(device, learner.precision):
            kept = prefix(pixels.inputs(np.arange(1), 1))
        self.bytes = 2.0 * sum(tensor[0].numel() for tensor in kept)
        self.passed, plainly = (len(rows) / each for each in _in_turn(device, ours, peer))
        yield Pair("frozen pass, images a second", self.passed, plainly)

    def _plain_trials(self) -> Iterator[Pair]:
        """Trials of a plain loop, measured once for each cut-off of the list."""
        learner = self._learner()
        for place in sorted({place for place, *_ in TRIALS}, key=lambda at: at not in (HEAD, DEEP)):
            self._plain[place] = plain_trial(learner, self._cutoff(learner, place), self.folder)
        yield from ()

    def _list(self) -> Iterator[Pair]:
        """Seconds of ten trials, with decoding and passes, and of the same by a plain loop."""
        began = time.perf_counter()
        learner = self._learner()
        for place, optimizer, lr in TRIALS:
            learner.train(self._cutoff(learner, place), learner.recipe(optimizer, lr))
        wait(self.device)
        seconds = time.perf_counter() - began
        plain = sum(self._plain.get(place, float("nan")) for place, *_ in TRIALS)
        yield Pair("list of ten trials, seconds", seconds, plain, True)

    def _trials(self, compile: str = "none") -> Iterator[Pair]:
        """Trials a second of a head and of a deep cut, after the first, and of a plain loop."""
        learner = self._learner(compile=compile)
        recipe = learner.recipe("adam", 1e-3)
        for place in (HEAD, DEEP):
            cutoff = self._cutoff(learner, place)
            epochs: list[float] = []
            learner.train(cutoff, recipe)  # keeps the activations
            wait(self.device)
            began = time.perf_counter()
            learner.train(cutoff, recipe, lambda epoch: epochs.append(epoch.seconds))  # noqa: B023
            wait(self.device)
            ours = time.perf_counter() - began
            if place == HEAD:
                count = len(learner.labels("train"))
                self.trained = max(count / min(epochs), np.nan_to_num(self.trained))
            ways = "" if compile == "none" else f", {compile}"
            plain = self._plain.get(place, float("nan"))
            yield Pair(f"trial from {cutoff}{ways}, a second", 1 / ours, 1 / plain)

    def _timm_loop(self) -> Iterator[Pair]:
        """Images a second of fine-tuning all layers by timm's loop; the compilation apart."""
        learner = self._learner()
        self._reset_peak()
        epochs = list(timm_epochs(learner, self.compiled and self.device.type == "cuda"))
        self._timm = len(learner.labels("train")) / statistics.median(epochs[1:] or epochs)
        self._timm_peak = self._peak()
        yield from ()

    def _all_layers(self, compile: str = "none") -> Iterator[Pair]:
        """Images a second of fine-tuning all layers, beside timm's loop, and peaks of memory.

        Both score the validation images each epoch.
        """
        learner, epochs = self._learner(compile=compile), list[Epoch]()
        self._reset_peak()
        learner.train("all", learner.recipe("adamw", 1e-4), epochs.append)
        seconds = [epoch.seconds for epoch in epochs]
        usual = statistics.median(seconds[1:] or seconds)
        ways = "" if compile == "none" else f", {compile}"
        count = len(learner.labels("train"))
        yield Pair(f"all layers{ways}, images a second", count / usual, self._timm)
        yield Pair(f"all layers{ways}, peak memory in GB", self._peak(), self._timm_peak, True)
        if compile != "none":
            yield Pair(f"  {compile}, seconds of its start", seconds[0] - usual, float("nan"))

    def _replayed(self) -> Iterator[Pair]:
        """Trials and all layers by steps that are replayed as CUDA graphs."""
        yield from self._trials("cudagraphs")
        yield from self._all_layers("cudagraphs")

    def _compiled_layers(self) -> Iterator[Pair]:
        """All layers compiled by Inductor."""
        yield from self._all_layers("inductor")

    def _reset_peak(self) -> None:
        give_back_freed_memory()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def _peak(self) -> float:
        """Returns GB on the GPU since the last reset; of this process so far on the CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e9
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _batches(count: int) -> Iterator[np.ndarray]:
    for start in range(0, count, PASS_BATCH):
        yield np.arange(start, min(start + PASS_BATCH, count))


def _in_turn(device: torch.device, *sides: Callable[[], None]) -> list[float]:
    """Returns the median seconds of each side; the sides run in turn, after one warm-up each."""
    seconds: list[list[float]] = [[] for _ in sides]
    for turn in range(PAIRS + 1):
        for side, own in zip(sides, seconds, strict=True):
            wait(device)
            began = time.perf_counter()
            side()
            wait(device)
            if turn:
                own.append(time.perf_counter() - began)
    return [statistics.median(own) for own in seconds]
