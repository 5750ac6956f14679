"""A comparison of made-up models, whose numbers are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from medtl.evaluation.model_comparison import Cases, CellResult, Comparison, Outcome, compared

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.integers(0, 3, 90)
CASES = Cases(LABELS, np.arange(90) // 2, ("a", "b", "c"), patients=45)


def probabilities(skill: float, seed: int = 0) -> np.ndarray:
    raw = np.random.default_rng(seed).random((90, 3)) + skill * np.eye(3)[LABELS]
    return raw / raw.sum(axis=1, keepdims=True)


def cell_result(arm: str, seed: int, skill: float | None, **own: object) -> CellResult:
    outcome = None
    if skill is not None:
        outcome = Outcome(
            probabilities=probabilities(skill, seed),
            history=pd.DataFrame({"epoch": [1, 2], "valid_accuracy": [0.4, 0.4 + skill / 4]}),
            valid_auroc=0.5 + skill / 4,
            valid_error=0.02,
            best_epoch=2,
            seconds=3.0,
            place=1,
            trained_parameters=10,
            trained_flops=100,
            trained_share=0.5,
            run_id=f"{arm}{seed}",
        )
    values = {"architecture": "net", "series": arm, "cutoff": "all", "fraction": 1.0, **own}
    error = "" if skill is not None else "<b>out</b> of memory | again"
    return CellResult(f"{arm}, seed {seed}", arm, seed=seed, settings={"lr": 0.1},
                     outcome=outcome, error=error, **values)  # fmt: skip


@pytest.fixture(scope="session")
def comparison() -> Comparison:
    """Two arms of two seeds, one far better, and one that failed."""
    cell_results = [
        cell_result("random", 0, 0.1),
        cell_result("random", 1, 0.1),
        cell_result("pretrained", 0, 1.5),
        cell_result("pretrained", 1, 1.5),
        cell_result("broken", 0, None),
    ]
    pairs = [(f"random, seed {seed}", f"pretrained, seed {seed}") for seed in (0, 1)]
    pairs.append(("random, seed 0", "broken, seed 0"))
    return compared(CASES, cell_results, pairs, "accuracy", seed=0)


@pytest.fixture(scope="session")
def cases() -> Cases:
    return CASES


@pytest.fixture(scope="session")
def made() -> Callable[..., CellResult]:
    """`made(arm, seed, skill)`: a contender, of no outcome where `skill` is None."""
    return cell_result


@pytest.fixture(scope="session")
def scored() -> Callable[..., np.ndarray]:
    """`scored(skill, seed)`: probabilities [N, K], the better the higher the skill."""
    return probabilities
