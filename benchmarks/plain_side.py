"""The plain side: a float32 loop in the form of PyTorch's tutorials.

ImageFolder decodes each image in each epoch, and the whole network runs in each step. Frozen
parameters have `requires_grad=False`, and frozen batch norms are in eval mode. Nothing of medtl is
imported, because its settings of threads and memory must not apply here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.trials import Trial

BATCH = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPTIMIZERS = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}


@dataclass
class PlainSide:
    """Trains one network after the other on a folder with `train/` and `valid/`."""

    folder: Path
    architecture: str
    weights: str  # imagenet or random
    size: int = 224  # side of the square input, in pixels
    seed: int = 0  # of the new head and of the order of the images

    def prepare(self) -> None:
        """Does nothing: a plain loop needs no preparation."""

    def run(self, trial: Trial, epochs: int) -> Iterator[tuple[float, float]]:
        """Yields the validation AUROC and the seconds since the trial began after each epoch."""
        began = time.perf_counter()
        torch.manual_seed(self.seed)
        train, valid = (self._loader(split) for split in ("train", "valid"))
        network = network_for(class_count(self.folder), self.architecture, self.weights)
        norms = freeze_before(network, trial.cutoff)
        optimizer = optimizer_of(trial, network)
        for _ in range(epochs):
            network.train()
            for norm in norms:
                norm.eval()
            for images, labels in train:
                optimizer.zero_grad()
                F.cross_entropy(network(images), labels).backward()
                optimizer.step()
            yield _valid_auroc(network, valid), time.perf_counter() - began

    def _loader(self, split: str) -> DataLoader:
        steps = [transforms.Resize((self.size, self.size)), transforms.ToTensor()]
        steps.append(transforms.Normalize(MEAN, STD))
        images = ImageFolder(str(self.folder / split), transforms.Compose(steps))
        return DataLoader(images, BATCH, shuffle=split == "train")


def class_count(folder: Path) -> int:
    """Counts the classes of a folder with `train/CLASS/...`."""
    return sum(each.is_dir() for each in (folder / "train").iterdir())


def network_for(classes: int, architecture: str, weights: str) -> nn.Module:
    """Builds a torchvision network with a new last linear layer for these classes."""
    chosen = None
    if weights == "imagenet":
        chosen = "IMAGENET1K_V1" if architecture == "mobilenet_v2" else "DEFAULT"
    network = torchvision.models.get_model(architecture, weights=chosen)
    name, head = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear)][-1]
    parent = network.get_submodule(name.rpartition(".")[0])
    setattr(parent, name.rpartition(".")[2], nn.Linear(head.in_features, classes))
    return network


def freeze_before(network: nn.Module, cutoff: str) -> list[nn.Module]:
    """Freezes the parameters before `cutoff`; returns the frozen batch norms."""
    frozen = True
    norms: list[nn.Module] = []
    for name, module in network.named_modules():
        frozen = frozen and name != cutoff
        if frozen and isinstance(module, nn.BatchNorm2d):
            norms.append(module)
    for name, parameter in network.named_parameters():
        if name.startswith(f"{cutoff}."):
            break
        parameter.requires_grad_(False)
    return norms


def optimizer_of(trial: Trial, network: nn.Module) -> torch.optim.Optimizer:
    """Builds the optimizer of the trial for the parameters that are not frozen."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if trial.optimizer == "sgd":
        return torch.optim.SGD(trained, trial.lr, momentum=0.9)
    return OPTIMIZERS[trial.optimizer](trained, trial.lr)


def auroc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Computes the AUROC of probabilities [N, K]; of more than two classes the macro average."""
    if probabilities.shape[1] == 2:
        return float(roc_auc_score(labels, probabilities[:, 1]))
    return float(roc_auc_score(labels, probabilities, multi_class="ovr"))


@torch.no_grad()
def _valid_auroc(network: nn.Module, valid: DataLoader) -> float:
    network.eval()
    scores, labels = zip(*((network(images).softmax(1), y) for images, y in valid), strict=True)
    return auroc(np.concatenate(labels), torch.cat(scores).numpy())
