"""Artifacts of a run with refused data: the full list of violations."""

from __future__ import annotations

import mlflow

from medtl.data.refused_data import RefusedDataError
from medtl.errors import MedtlError
from medtl.reporting.csv_export import harmless
from medtl.tracking.store import current_run


def log_refused(error: RefusedDataError) -> MedtlError:
    """Logs `data/report.html` and the table; returns an error with their location."""
    # Reports need plotting, which commands without data should not import.
    from medtl.reporting.data_report import refusal_report

    mlflow.log_text(refusal_report(error), "data/report.html")
    mlflow.log_text(harmless(error.table).to_csv(index=False), f"data/{error.listing}.csv")
    run_id = current_run().info.run_id
    return MedtlError(f"{error}; all are listed in data/{error.listing}.csv of run {run_id}")
