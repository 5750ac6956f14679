"""Universal perturbations compared with the Adversarial Robustness Toolbox (ART) on digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmarks.toolbox import toolbox_perturbation
from medtl.evaluation.universal_perturbations import (
    AttackRecipe,
    fooled,
    norms,
    norms_from_black,
    predicted,
    random_perturbation,
    sequential,
)

ZETA, STEP, PASSES = 0.35, 0.1, 3


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    """Loads handwritten digits [1797, 1, 8, 8] from -1 to 1, and their labels."""
    images, labels = load_digits(return_X_y=True)
    return torch.from_numpy(images / 8 - 1).float().reshape(-1, 1, 8, 8), torch.from_numpy(labels)


@pytest.fixture(scope="module")
def network(digits: tuple[Tensor, Tensor]) -> nn.Module:
    """Trains a small network to a test accuracy of 95 %."""
    images, labels = digits
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trained = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip
        optimizer = torch.optim.Adam(trained.parameters(), lr=2e-3)
        for _ in range(12):
            for rows in torch.randperm(1200).split(50):
                optimizer.zero_grad()
                nn.functional.cross_entropy(trained(images[rows]), labels[rows]).backward()
                optimizer.step()
    assert (predicted(trained, images[1200:]) == labels[1200:]).float().mean() > 0.93
    return trained.eval()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # from ART's imports
def test_as_many_digits_are_fooled_as_by_the_toolbox(digits, network):
    pytest.importorskip("art")
    images, test = digits[0][:300], digits[0][1200:]
    limit = ZETA * norms_from_black(images, "l2").mean().item()
    own = predicted(network, test)

    def rate(pattern: Tensor) -> float:
        return fooled(own, predicted(network, test + pattern), None).float().mean().item()

    recipe = AttackRecipe("l2", limit, STEP, PASSES)
    ours = sequential(network, images, recipe, torch.Generator().manual_seed(0))
    theirs = toolbox_perturbation(network, images, recipe, classes=10, seed=0)
    generator, length = torch.Generator().manual_seed(1), norms(ours[None], "l2").item()
    control = [rate(random_perturbation(ours, "l2", length, generator)) for _ in range(5)]
    assert rate(ours) > 2 * np.mean(control)
    assert rate(ours) == pytest.approx(rate(theirs), abs=0.1)
