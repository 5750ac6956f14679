"""Peers of medtl on one device: timm's training loop, and a plain loop.

timm's loop has its fast settings: AMP in bf16, channels-last, a fused AdamW, timm's prefetcher, and
is compiled on a GPU. The plain loop has the form of PyTorch's tutorials.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data.loader import PrefetchLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms

from medtl.networks.cutoffs import resolve
from medtl.networks.partition import cut
from medtl.networks.registry import build
from medtl.training.device import autocast
from medtl.training.learner import TransferLearner


def wait(device: torch.device) -> None:
    """Waits for the end of all operations that were queued on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timm_epochs(learner: TransferLearner, compiled: bool) -> Iterator[float]:
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
        wait(device)
        began = time.perf_counter()
        network.train()
        for images, labels in loaders[0]:
            arranged = images.contiguous(memory_format=torch.channels_last)
            with autocast(device, learner.precision):
                loss = F.cross_entropy(forward(arranged).float(), labels)
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
            yield (images.float() - self._mean) / self._std, labels


def plain_trial(learner: TransferLearner, cutoff: str, folder: Path) -> float:
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
    wait(device)
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
    wait(device)
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
