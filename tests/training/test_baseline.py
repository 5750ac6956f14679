"""Baselines beside a model: the same splits, and the paired gain over them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from medtl.data.dataset import Dataset
from medtl.evaluation.calibration import fit_temperature
from medtl.evaluation.jackknife import Difference, Interval
from medtl.inference.decisions import calibrated
from medtl.pipeline.baselines import (
    BRIGHTNESS,
    FEATURES,
    FILES,
    Baseline,
    baselines,
    by_files,
    read_table,
    table,
    without_files,
)
from medtl.training.learner import TransferLearner


def with_file_sizes(dataset: Dataset, sizes: np.ndarray) -> Dataset:
    pixels = dataclasses.replace(dataset.pixels, file_sizes=sizes[np.argsort(dataset.rows[:, 0])])
    return dataclasses.replace(dataset, pixels=pixels)


def on(made: TransferLearner, dataset: Dataset, **settings: object) -> TransferLearner:
    settings = dataclasses.replace(made.settings, **settings)
    return dataclasses.replace(made, dataset=dataset, settings=settings)


def test_a_solved_head_is_its_own_baseline_and_a_constant_is_worse(transfer):
    made = transfer(epochs=0, data="labels.csv")
    model = made.train("head", made.recipe("adam", 1e-3))
    temperature = fit_temperature(model.fit.valid_logits, made.labels("valid"))
    probabilities = calibrated(made.logits(model, "test"), temperature)
    frozen, bright, files = baselines(made, probabilities)
    assert (frozen.name, bright.name, files.name) == (FEATURES, BRIGHTNESS, FILES)
    assert frozen.gain.value == pytest.approx(0, abs=0.02)  # but for the 16 bits of a forward pass
    assert bright.auroc.low < bright.auroc.value < bright.auroc.high

    uniform = np.full_like(probabilities, 1 / 3)
    frozen, bright, files = baselines(made, uniform)
    assert bright.gain.value == pytest.approx(0.5 - bright.auroc.value)
    assert bright.beats
    found = table((frozen, bright))
    assert found["baseline"].tolist() == [FEATURES, BRIGHTNESS]
    assert found["gain"].tolist() == [frozen.gain.value, bright.gain.value]
    again = read_table(found.astype(str))
    assert [each.line() for each in again] == [frozen.line(), bright.line()]


def test_file_properties_that_tell_the_classes_are_found(transfer):
    made = transfer(data="labels.csv")
    labels = made.dataset.labels
    told = on(made, with_file_sizes(made.dataset, 1000 + 100 * labels))
    found = by_files(told)
    test = labels[made.dataset.splits["test"]]
    assert (found.argmax(axis=1) == test).all()
    some = dataclasses.replace(told, rows=np.flatnonzero(told.labels("train") < 2))
    assert by_files(some)[:, 2].max() == 0, "only the rows that are used are learned from"


def test_data_without_telling_files_has_no_such_baseline(transfer):
    made = transfer(data="labels.csv")
    assert without_files(made) == ""
    drawn = on(made, made.dataset, data="phantoms")
    assert without_files(drawn) == "no files, phantoms is drawn"
    same = on(made, with_file_sizes(made.dataset, np.full(len(made.dataset.labels), 1000)))
    assert without_files(same) == "the same for all images"


def test_findings_and_a_share_of_the_images_have_baselines(transfer):
    made = transfer(data="labels.csv")
    labels = made.dataset.labels
    findings = np.stack([labels == 1, labels == 2, labels > 0], axis=1).astype(np.int8)
    findings[::7, 0] = -1
    several = dataclasses.replace(made.dataset, labels=findings)
    rows = np.arange(0, len(made.labels("train")), 2)
    shared = dataclasses.replace(on(made, several), rows=rows)
    uniform = np.full((len(made.dataset.splits["test"]), 3), 0.5)
    for each in baselines(shared, uniform):
        assert each.auroc.value == pytest.approx(0.5 - each.gain.value)


@pytest.mark.parametrize(
    ("bounds", "verdict", "warning"),
    [
        ((0.1, 0.05, 0.15), "the model is better", ""),
        ((0.1, -0.05, 0.2), "the difference may be chance", ""),
        ((-0.0001, -0.01, 0.01), "no difference", ""),
        (
            (-0.1, -0.2, 0.05),
            "the model is below it",
            "the model is below the baseline on frozen features: AUROC -0.100 (-0.200 to +0.050), "
            "which may be chance; cutoff=head epochs=0 trains that baseline",
        ),
        (
            (-0.1, -0.2, -0.05),
            "the model is worse",
            "the model is worse than the baseline on frozen features: AUROC -0.100 (-0.200 to "
            "-0.050); cutoff=head epochs=0 trains that baseline",
        ),
    ],
)
def test_the_line_says_whether_the_model_is_better(bounds, verdict, warning):
    found = Baseline(FEATURES, Interval(0.9, 0.85, 0.94), Difference(*bounds, 0.9))
    line = found.line()
    assert line.startswith("frozen features: auroc 0.900 (0.850 to 0.940); model ")
    assert line.endswith(verdict)
    assert found.beats == bool(warning)
    assert not warning or found.warning() == warning
    assert not warning or found.shortfall() == warning.partition(";")[0]
