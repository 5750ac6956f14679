"""Baselines beside a model: the same splits, and the paired gain over logistic regression."""

from __future__ import annotations

import numpy as np
import pytest

from medtl.evaluation.calibration import calibrated, fit_temperature
from medtl.evaluation.intervals import Difference, Interval
from medtl.jobs.baseline import BRIGHTNESS, FEATURES, Baseline, baselines, table


def test_a_solved_head_is_its_own_baseline_and_a_constant_is_worse(transfer):
    made = transfer(epochs=0)
    model = made.train("head", made.recipe("adam", 1e-3))
    temperature = fit_temperature(model.fit.valid_logits, made.labels("valid"))
    probabilities = calibrated(made.logits(model, "test"), temperature)
    frozen, bright = baselines(made, probabilities)
    assert (frozen.name, bright.name) == (FEATURES, BRIGHTNESS)
    assert frozen.gain.value == pytest.approx(0, abs=0.02)  # but for the 16 bits of a forward pass
    assert bright.auroc.low < bright.auroc.value < bright.auroc.high

    uniform = np.full_like(probabilities, 1 / 3)
    frozen, bright = baselines(made, uniform)
    assert bright.gain.value == pytest.approx(0.5 - bright.auroc.value)
    found = table((frozen, bright))
    assert found["baseline"].tolist() == [FEATURES, BRIGHTNESS]
    assert found["gain"].tolist() == [frozen.gain.value, bright.gain.value]


@pytest.mark.parametrize(
    ("bounds", "verdict"),
    [
        ((0.1, 0.05, 0.15), "the model is better"),
        ((0.1, -0.05, 0.2), "the difference may be chance"),
        ((-0.0001, -0.01, 0.01), "no difference"),
        ((-0.1, -0.2, 0.05), "the model is below it"),
        ((-0.1, -0.2, -0.05), "the model is worse"),
    ],
)
def test_the_line_says_whether_the_model_is_better(bounds, verdict):
    line = Baseline(FEATURES, Interval(0.9, 0.85, 0.94), Difference(*bounds, 0.9)).line()
    assert line.startswith("frozen features: auroc 0.900 (0.850 to 0.940); model ")
    assert line.endswith(verdict)
