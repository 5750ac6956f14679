"""The data report as artifacts of a run, and what of it matters on the console."""

from __future__ import annotations

import sys

import mlflow

from medtl.data.dataset import Dataset
from medtl.data.report import data_facts
from medtl.evaluation.report import data_report
from medtl.spreadsheet import harmless

SEED = 0  # equal data has an equal report, whatever the seed of the training


def log_data_report(dataset: Dataset) -> None:
    """The page `data/report.html` and its tables; prints a line on stderr for what matters."""
    facts = data_facts(dataset, SEED)
    written = data_report(facts, SEED)
    mlflow.log_text(written.html, "data/report.html")
    tables = {
        "classes": facts.counts,
        "sizes": facts.sizes,
        "together": facts.together,
        "near_duplicates": facts.copies.drop(columns=["first", "second"]),
        "blank": facts.blank,
        "shortcuts": written.shortcuts,
    }
    for name, table in tables.items():
        if len(table):
            mlflow.log_text(harmless(table).to_csv(index=False), f"data/{name}.csv")
    for line in written.findings:
        if line not in dataset.notes:  # notes are printed separately
            print(f"data {dataset.name}: {line}", file=sys.stderr)
