"""Logging of figures, tables, tensors and metrics with intervals."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from safetensors.torch import save_file
from torch import Tensor

from medtl.evaluation.jackknife import Difference, Interval
from medtl.reporting.csv_export import write_csv
from medtl.tracking.addresses import artifact_address

DPI = 160
COMPRESSION = 3  # of PNG files: a third of the time of level 6, and 5 % larger


def log_intervals(intervals: Mapping[str, Interval | Difference]) -> None:
    """Logs each as the metrics NAME, NAME_low and NAME_high, where they are finite.

    In one call, as each is a request to a tracking server; values first, since the page of a run
    lists metrics in the order in which they were logged.
    """
    bounds = {name: each.value for name, each in intervals.items()}
    for name, each in intervals.items():
        bounds |= {f"{name}_low": each.low, f"{name}_high": each.high}
    mlflow.log_metrics({name: value for name, value in bounds.items() if np.isfinite(value)})


def log_picture(figure: Figure, place: str) -> None:
    """Logs a figure as a PNG artifact."""
    with _file_for(place) as path:
        figure.savefig(path, dpi=DPI, pil_kwargs={"compress_level": COMPRESSION})


def log_table(frame: pd.DataFrame, place: str) -> None:
    """Logs a table as a CSV artifact, escaped for spreadsheets."""
    with _file_for(place) as path:
        write_csv(frame, path)


def replace_text(run: Run, text: str, place: str) -> None:
    """Writes a text artifact of a run, on a local disk so that no reader sees a part of it."""
    path = Path(artifact_address(run, place))
    if not path.is_absolute():  # on a server
        MlflowClient().log_text(run.info.run_id, text, place)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def log_tensors(tensors: Mapping[str, Tensor], place: str, facts: Mapping[str, str]) -> None:
    """Logs tensors by name as a safetensors artifact, with `facts` in its metadata."""
    with _file_for(place) as path:
        kept = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        save_file(kept, path, dict(facts))


@contextlib.contextmanager
def _file_for(place: str) -> Iterator[Path]:
    folder, name = place.rsplit("/", 1)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / name
        yield path
        mlflow.log_artifact(str(path), folder)
