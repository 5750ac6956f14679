"""Coverage benchmark: one row per metric."""

from __future__ import annotations

from benchmarks import coverage
from medtl.evaluation.metrics import overall_metrics


def test_a_row_a_metric(monkeypatch):
    monkeypatch.setattr(coverage, "LARGE", 500)
    monkeypatch.setattr(coverage, "RESAMPLES", 20)
    population = coverage.Population(0.87, 0.9, 0.5, 0.7, 1.0)
    heading, *rows = coverage.simulate(population, (12,), trials=2, seed=0)
    assert heading.startswith("12 patients")
    assert [row.split()[0] for row in rows] == [each.name for each in overall_metrics()]
