"""Evaluations are computed without MLflow and matplotlib; a registered metric is in all of them."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

import medtl.evaluation
from medtl.data.dataset import Dataset
from medtl.data.loading import load
from medtl.errors import ParameterError
from medtl.evaluation import metrics
from medtl.evaluation.confidence_intervals import mean_score, measure
from medtl.evaluation.split_evaluation import SplitEvaluation, SplitPredictions, evaluate_split
from medtl.evaluation.subgroups import groups, score_subgroups
from medtl.pipeline.evaluation_logging import log_evaluation
from medtl.reporting.model_card import CardFacts, model_card

FILES = {
    *(f"{name}.csv" for name in ("per_class", "averages", "predictions", "calibration")),
    *(f"{name}.png" for name in ("roc", "precision_recall", "confusion", "reliability")),
    "decision_curve.csv", "decision_curve.png", "worst_mistakes.png",
}  # fmt: skip
NAME = "negative_predictive_value"
MODULE = f"""
from medtl.evaluation.metrics import Metric, register
from medtl.evaluation.scored_cases import WeightedCases, ratio


def negative_predictive_value(cases: WeightedCases):
    right = cases.absent - cases.false_alarms
    return ratio(right, right + cases.actual - cases.hits)


register(
    Metric(
        name="{NAME}",
        label="NPV",
        meaning="share of the images not called so that are of another class",
        single_label=negative_predictive_value,
        per_class=True,
        headline=True,
        subgroups=True,
    )
)
"""


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a metric that one file registers."""
    monkeypatch.setattr(metrics, "_TABLE", dict(metrics._TABLE))
    file = tmp_path / "more_metrics.py"
    file.write_text(MODULE)
    spec = importlib.util.spec_from_file_location("more_metrics", file)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return NAME


@pytest.fixture(scope="module")
def wards(small_phantoms: Path) -> Dataset:
    return load(str(small_phantoms), 64, seed=0)


def predicted(dataset: Dataset, split: str = "test") -> SplitPredictions:
    """Made-up predictions, most of them right."""
    indices = dataset.splits[split]
    classes = len(dataset.classes)
    drawn = np.random.default_rng(0).dirichlet(np.ones(classes), len(indices))
    probabilities = (4 * drawn + np.eye(classes)[dataset.labels[indices]]) / 5
    decisions = probabilities.argmax(axis=1)
    return SplitPredictions(split, indices, probabilities, drawn, probabilities, decisions)


def npv(evaluation: SplitEvaluation) -> np.ndarray:
    cases, names = evaluation.cases, range(len(evaluation.cases.classes))
    others = [cases.decisions != name for name in names]
    return np.array([np.mean(cases.labels[each] != name) for name, each in enumerate(others)])


def test_a_registered_metric_has_an_interval_in_metrics_card_and_subgroups(
    registered: str, wards: Dataset, bundle: object
):
    evaluation = evaluate_split(wards, predicted(wards), seed=0)
    with mlflow.start_run() as run:
        log_evaluation(evaluation)
    interval = evaluation.measures.summary[registered]
    assert interval.value == pytest.approx(npv(evaluation).mean())
    assert 0 < interval.low < interval.value < interval.high < 1
    logged = MlflowClient().get_run(run.info.run_id).data.metrics
    for end, value in (("", interval.value), ("_low", interval.low), ("_high", interval.high)):
        assert logged[f"test_{registered}{end}"] == pytest.approx(value)

    files = MlflowClient().list_artifacts(run.info.run_id, "evaluation/test")
    assert {Path(each.path).name for each in files} == FILES

    per_class = evaluation.measures.per_class
    np.testing.assert_allclose(per_class[registered], npv(evaluation))
    assert (per_class[f"{registered}_low"] < per_class[registered]).all()
    averages = evaluation.measures.averages.set_index("metric").loc[registered]
    assert averages["macro"] == pytest.approx(npv(evaluation).mean())
    assert averages["micro_low"] < averages["micro"] < averages["micro_high"]
    assert f"negative predictive value{interval}" in evaluation.summary().replace("  ", "")

    card = model_card(CardFacts(bundle, "patients", (), evaluation.measures.summary), "model")
    assert f"**NPV {interval.value:.3f}** ({interval.low:.3f} to {interval.high:.3f}): " in card

    sides = groups(pd.Series(np.arange(len(evaluation.cases.labels)) % 2), "half")
    table = score_subgroups(evaluation.cases, {"half": sides}, seed=0)
    assert {f"{registered}_low", f"{registered}_difference_high"} <= set(table.columns)


def test_a_registered_metric_is_compared_and_holds_for_findings(registered: str):
    generator = np.random.default_rng(1)
    labels = generator.integers(-1, 2, (80, 3)).astype(np.int8)
    probabilities = np.clip(0.6 * labels + generator.uniform(0, 0.4, (80, 3)), 0, 1)
    found = measure(labels, probabilities, np.arange(80), tuple("abc"), 0, 20)
    interval = found.summary[registered]
    decided = probabilities >= 0.5
    expected = [
        np.mean(labels[~decided[:, index] & (labels[:, index] >= 0), index] == 0)
        for index in range(3)
    ]
    assert interval.value == pytest.approx(np.mean(expected))
    assert mean_score(labels, [probabilities], np.arange(80), registered, 0) == interval


def test_a_metric_has_one_row():
    with pytest.raises(ValueError, match="auroc"):
        metrics.register(metrics.metric_named("auroc"))
    with pytest.raises(ParameterError, match=r"metric=precision.*one of auroc, auprc"):
        metrics.metric_named("precision")  # by class only


def test_evaluation_logs_and_draws_nothing():
    for file in Path(medtl.evaluation.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [each.name for each in getattr(node, "names", [])]
            names.append(getattr(node, "module", None) or "")
            assert not any(name.startswith(("mlflow", "matplotlib")) for name in names), file


def test_an_evaluation_is_frozen_and_equal_seeds_give_equal_numbers(wards: Dataset):
    first, second = (evaluate_split(wards, predicted(wards, "valid"), seed=3) for _ in range(2))
    assert first.measures.summary == second.measures.summary
    assert first.calibration.equals(second.calibration)
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.split = "test"
