"""Speed on one device: frozen pass, full fine-tuning and trials, each beside a peer.

Meant for a GPU; on the CPU, and small, it tests itself. The images are phantoms: the time does not
depend on what they show.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import click
import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data.loader import PrefetchLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms

from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.networks.cutoffs import cut_points, resolve
from medtl.networks.partition import cut, stages
from medtl.networks.registry import build
from medtl.pipeline.setup import Origin, training_data
from medtl.settings.training import TrainSettings
from medtl.training.device import autocast, resolve_device
from medtl.training.learner import TransferLearner
from medtl.training.loaders import PASS_BATCH, ComputedLoader
from medtl.training.loop import Epoch

NETWORKS = "densenet121,timm:vit_small_patch14_dinov2"
PAIRS = 3  # measurements of each side, in turn


@dataclass(frozen=True)
class Pair:
    """Rates of medtl and of its peer, in the same unit; the higher the better."""

    name: str
    medtl: float
    peer: float

    @property
    def line(self) -> str:
        """Line of the table."""
        return (
            f"  {self.name:<40}{self.medtl:>10.4g}{self.peer:>10.4g}{self.medtl / self.peer:>8.2f}"
        )


@click.command()
@click.option("--networks", default=NETWORKS, help="comma list of architectures")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N")
@click.option("--size", default=224, help="side of the images in pixels")
@click.option("--patients", default=400, help="of the phantoms, about two training images each")
@click.option("--epochs", default=3, help="epochs of a training")
@click.option("--compiled/--eager", default=True, help="whether timm's loop is compiled on a GPU")
def gpu(networks: str, device: str, size: int, patients: int, epochs: int, compiled: bool) -> None:
    """Times pass, full fine-tuning and trials beside plain PyTorch and timm's loop."""
    place = resolve_device(device)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else "CPU"
    print(f"{name}, PyTorch {torch.__version__}, {size} px; phantoms, random weights")
    for architecture in networks.split(","):
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.dict("os.environ", {"MEDTL_CACHE": f"{folder}/cache"}),
        ):
            write_chest_phantoms(Path(folder), patients=patients, image_size=size)
            learner = _learner(architecture, folder, str(place), size, epochs)
            print(f"{architecture}, {learner.precision}, {len(learner.labels('train'))} images")
            print(f"  {'':<40}{'medtl':>10}{'peer':>10}{'ratio':>8}")
            for pair in (
                _frozen_pass(learner),
                *_trials(learner, Path(folder)),
                _full_training(learner, compiled and place.type == "cuda"),
            ):
                print(pair.line, flush=True)
            print(f"  peak memory {_peak(place)}")


def _learner(
    architecture: str, folder: str, device: str, size: int, epochs: int
) -> TransferLearner:
    settings = TrainSettings(
        data=f"{folder}/labels.csv",
        architecture=architecture,
        weights="random",
        image_size=size,
        device=device,
        epochs=epochs,
        patience=epochs,
        augment="none",
    )
    origin = Origin.of(settings)
    return origin.transfer(training_data(settings, origin.rendering), settings)


def _frozen_pass(learner: TransferLearner) -> Pair:
    """Images a second from stored pixels to the head, and of the same network in plain PyTorch."""
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

    seconds = _in_turn(device, ours, peer)
    return Pair("frozen pass, images a second", *(len(rows) / each for each in seconds))


def _full_training(learner: TransferLearner, compiled: bool) -> Pair:
    """Images a second of fine-tuning all layers, and of timm's loop with its fast settings.

    The peer has AMP in bf16, channels-last, a fused AdamW, timm's prefetcher, and is compiled on a
    GPU; the epoch that compiles it is not counted. Both score the validation images each epoch.
    """
    epochs: list[float] = []

    def on_epoch(epoch: Epoch) -> None:
        epochs.append(epoch.seconds)

    learner.train("all", learner.recipe("adamw", 1e-4), on_epoch)
    count = len(learner.labels("train"))
    peers = list(_timm_epochs(learner, compiled))
    ours, peer = (statistics.median(each[1:] or each) for each in (epochs, peers))
    return Pair("all layers, images a second", count / ours, count / peer)


def _timm_epochs(learner: TransferLearner, compiled: bool) -> Iterator[float]:
    """Yields the seconds of the epochs of timm's training loop."""
    device, dataset = learner.device, learner.dataset
    _, _, family = learner.backbone.architecture.rpartition("timm:")
    network: nn.Module
    classes = len(dataset.classes)
    if family != learner.backbone.architecture:
        network = timm.create_model(family, num_classes=classes, img_size=learner.image_size)
    else:
        network = build(family, classes, learner.image_size, seed=0)
    network = network.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    forward = torch.compile(network) if compiled else network
    loaders = [_timm_loader(learner, split) for split in ("train", "valid")]
    for _ in range(learner.settings.epochs + compiled):
        _wait(device)
        began = time.perf_counter()
        network.train()
        for images, labels in loaders[0]:
            with autocast(device, learner.precision):
                loss = F.cross_entropy(forward(images).float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.inference_mode(), autocast(device, learner.precision):
            scores = [network(images).float().cpu() for images, _ in loaders[1]]
        torch.cat(scores)
        yield time.perf_counter() - began


def _timm_loader(learner: TransferLearner, split: str) -> Iterable[tuple[Tensor, Tensor]]:
    """Returns batches of a split: uint8 in memory, moved and normalised by timm's prefetcher."""
    dataset, preprocessing = learner.dataset, learner.backbone.preprocessing
    indices = dataset.splits[split]
    stored = torch.from_numpy(dataset.images(indices)).expand(-1, 3, -1, -1).contiguous()
    data = TensorDataset(stored, torch.from_numpy(dataset.labels[indices]))
    on_gpu, size = learner.device.type == "cuda", learner.settings.batch_size
    loader = DataLoader(
        data, size, shuffle=split == "train", drop_last=split == "train", pin_memory=on_gpu
    )
    if on_gpu:
        mean, std = preprocessing.mean, preprocessing.std
        return PrefetchLoader(loader, mean, std, device=learner.device)
    return _Normalised(loader, preprocessing.mean, preprocessing.std)


class _Normalised:
    """Loader that normalises uint8 batches on the CPU, where timm's prefetcher does not run."""

    def __init__(self, loader: DataLoader, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self._loader = loader
        self._mean, self._std = (255 * torch.tensor(each).view(3, 1, 1) for each in (mean, std))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self._loader:
            scaled = (images.float() - self._mean) / self._std
            yield scaled.contiguous(memory_format=torch.channels_last), labels


def _trials(learner: TransferLearner, folder: Path) -> Iterator[Pair]:
    """Trials a second of a head and of a deep cut, after the first, and of a plain loop."""
    network = learner.backbone.network
    blocks = cut_points(network, "blocks")
    deep = blocks[round(0.75 * (len(blocks) - 1))].name
    recipe = learner.recipe("adam", 1e-3)
    for cutoff, name in (("head", "head trial"), (deep, f"trial from {deep}")):
        learner.train(cutoff, recipe)  # keeps the activations
        _wait(learner.device)
        began = time.perf_counter()
        learner.train(cutoff, recipe)
        _wait(learner.device)
        ours = time.perf_counter() - began
        plain = _plain_trial(learner, cutoff, folder)
        yield Pair(f"{name}, trials a second", 1 / ours, 1 / plain)


def _plain_trial(learner: TransferLearner, cutoff: str, folder: Path) -> float:
    """Returns the seconds of a loop in the form of PyTorch's tutorials.

    In float32; it decodes each image in each epoch and computes the whole network in each step,
    with the parameters before the cut-off frozen.
    """
    device = learner.device
    network = learner.backbone.copy().to(device)
    trained = dict(_suffix_parameters(learner, network, cutoff))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trained)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 1e-3)
    size = learner.settings.batch_size
    train = DataLoader(_Files(learner, "train", folder), size, shuffle=True, drop_last=True)
    valid = DataLoader(_Files(learner, "valid", folder), size)
    _wait(device)
    began = time.perf_counter()
    for _ in range(learner.settings.epochs):
        network.train()
        for images, labels in train:
            loss = F.cross_entropy(network(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            for images, _ in valid:
                network(images.to(device)).cpu()
    _wait(device)
    return time.perf_counter() - began


class _Files(Dataset):
    """Image files of a split, decoded, resized and normalised one at a time."""

    def __init__(self, learner: TransferLearner, split: str, folder: Path) -> None:
        indices, expected = learner.dataset.splits[split], learner.backbone.preprocessing
        self._paths = [folder / path for path in learner.dataset.frame["path"].iloc[indices]]
        self._labels = learner.dataset.labels[indices].tolist()
        self._steps = transforms.Compose(
            [
                transforms.Resize((expected.image_size, expected.image_size)),
                transforms.ToTensor(),
                transforms.Normalize(expected.mean, expected.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._steps(Image.open(self._paths[index]).convert("RGB")), self._labels[index]


def _suffix_parameters(
    learner: TransferLearner, network: nn.Module, cutoff: str
) -> Iterator[tuple[str, nn.Parameter]]:
    point = resolve(network, learner.backbone.architecture, cutoff)
    yield from cut(network, point, learner.image_size).suffix.named_parameters()


def _batches(count: int) -> Iterator[np.ndarray]:
    for start in range(0, count, PASS_BATCH):
        yield np.arange(start, min(start + PASS_BATCH, count))


def _in_turn(device: torch.device, *sides: Callable[[], None]) -> list[float]:
    """Returns the median seconds of each side; the sides run in turn, after one warm-up each."""
    seconds: list[list[float]] = [[] for _ in sides]
    for turn in range(PAIRS + 1):
        for side, own in zip(sides, seconds, strict=True):
            _wait(device)
            began = time.perf_counter()
            side()
            _wait(device)
            if turn:
                own.append(time.perf_counter() - began)
    return [statistics.median(own) for own in seconds]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB on the GPU"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.2f} GB"
