"""What is left in a run of data that was refused: the whole list of what is wrong."""

from __future__ import annotations

import mlflow

from medtl.data.refused import RefusedDataError
from medtl.errors import MedtlError
from medtl.spreadsheet import harmless


def log_refused(error: RefusedDataError) -> MedtlError:
    """Logs `data/report.html` and the table; returns the error that says where they are."""
    # Reports need plotting, which no command should load that reads no data.
    from medtl.evaluation.report import refusal_report

    mlflow.log_text(refusal_report(error), "data/report.html")
    mlflow.log_text(harmless(error.table).to_csv(index=False), f"data/{error.listing}.csv")
    run = mlflow.active_run().info.run_id
    return MedtlError(f"{error}; all are listed in data/{error.listing}.csv of run {run}")
