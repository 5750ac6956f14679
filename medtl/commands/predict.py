"""Predict unlabelled images: a folder, a table or a tree of DICOM files in, one table out."""

from __future__ import annotations

import base64
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import mlflow
import pandas as pd
import torch
from mlflow.data.pandas_dataset import from_pandas

from medtl.cache import content_key, digest_of
from medtl.data.unlabelled import Unlabelled, check_unlabelled_place, read_unlabelled
from medtl.errors import MedtlError, ParameterError
from medtl.pipeline.partial_predictions import (
    FORMAT,
    PartialPredictions,
    Row,
    partial_file,
    partial_predictions,
)
from medtl.pipeline.predictions import answer_files, chunk_bounds, chunk_keys
from medtl.pipeline.setup import plain
from medtl.progress import in_words, progress
from medtl.reporting.prediction_table import (
    CSV,
    PARQUET,
    answer_columns,
    own_columns,
    table_about,
    write_prediction_table,
)
from medtl.serving.handler import FIELDS, HEATMAP, ServedModel
from medtl.settings.prediction import PHANTOM_MODEL, PredictSettings
from medtl.tracking.addresses import run_addresses
from medtl.tracking.logged_model import load_served
from medtl.tracking.runs import name_run, tracked_run
from medtl.training.device import resolve_device

TABLE = "predictions.csv"
MOST_NAMED = 3  # errors that are printed


def predict(settings: PredictSettings) -> None:
    """Writes a row of answers for each image, and logs the table."""
    with tracked_run("predict", settings) as run:
        device = resolve_device(settings.device)
        check_unlabelled_place(settings.data)
        table = table_place(settings.output)
        served = _model(settings.model)
        served.bundle = served.bundle.moved_to(device)
        inputs = read_unlabelled(settings, served.bundle.modalities)
        for note in inputs.notes:
            print(f"data {inputs.name}: {note}", file=sys.stderr)
        chunks = chunk_keys(inputs)
        _log_input(inputs, chunks, settings.model, served)
        answers = {
            "format": FORMAT,
            "model": served.identity.line(),
            "heatmaps": settings.heatmaps,
        }
        about = {**answers, "inputs": _inputs_key(inputs, chunks)}
        done = table_about(table)
        if done is None and not partial_file(table).exists():
            _check_free(table)
        elif done is not None and done != about:
            _refuse(table, done, about)
        if done == about and not partial_file(table).exists():
            lines = [f"{table} was finished before, of the same model and files, and is unchanged; "
                     "remove it to compute it again"]  # fmt: skip
        else:
            with partial_predictions(table, answers, run.info.run_id) as partial:
                lines = _answer(settings, served, inputs, chunks, partial, table, device)
                columns = _columns(served, settings.heatmaps)
                rows = (row for chunk in chunks for row in partial.rows(chunk))
                given = own_columns(inputs.frame, columns)
                write_prediction_table(table, given, rows, columns, about)
                partial.remove()
        lines += _log_table(table, len(inputs.frame))
    print("\n".join([f"{settings.model} ({served.identity.line()}) on {inputs.name}", *lines,
                     *run_addresses(run.info.run_id)]))  # fmt: skip


def table_place(output: str) -> Path:
    """Returns the path of the CSV; `output` may name a folder, or the Parquet file.

    Raises:
        ParameterError: the folder does not exist, or another suffix.
    """
    place = Path(output).expanduser()
    if place.is_dir():
        return place / TABLE
    if place.suffix not in (CSV, PARQUET) or not place.parent.is_dir():
        allowed = f"a file NAME{CSV} or NAME{PARQUET} in a folder that is there, or such a folder"
        raise ParameterError("output", output, allowed)
    return place.with_suffix(CSV)


def _model(uri: str) -> ServedModel:
    try:
        return load_served(uri)
    except MedtlError as error:
        if uri != PHANTOM_MODEL:
            raise
        raise MedtlError(
            f"{error}; a search makes it: mlflow run . -e tune --env-manager local; of other data "
            "give model="
        ) from error


def _check_free(table: Path) -> None:
    """Refuses to replace a table that is none of predictions."""
    for file in (table, table.with_suffix(PARQUET)):
        if file.exists():
            raise ParameterError("output", file, "a new file: this one was not made by predict")


def _refuse(table: Path, done: object, about: object) -> None:
    raise ParameterError(
        "output",
        table,
        "a new file: this one has the predictions of another model, other images or other "
        "parameters; remove it, or give another name",
    )


def _inputs_key(inputs: Unlabelled, chunks: Sequence[str]) -> str:
    rows = pd.util.hash_pandas_object(inputs.frame, index=False).to_numpy()
    return content_key(list(chunks), list(inputs.frame.columns), digest_of([rows]))


def _log_input(inputs: Unlabelled, chunks: Sequence[str], uri: str, served: ServedModel) -> None:
    bundle = served.bundle
    mlflow.set_tags({"medtl.model": uri, "medtl.architecture": bundle.architecture})
    name_run(inputs.name)
    listed = inputs.frame[list(inputs.naming)]
    digest = content_key(list(chunks))
    mlflow.log_input(from_pandas(listed, name=inputs.name, digest=digest), context="prediction")
    if inputs.notes:
        mlflow.log_text("\n".join(inputs.notes) + "\n", "data/notes.txt")


def _columns(served: ServedModel, heatmaps: bool) -> list[str]:
    fields = (*FIELDS, HEATMAP) if heatmaps else FIELDS
    return answer_columns(fields, served.bundle.classes)


def _answer(
    settings: PredictSettings,
    served: ServedModel,
    inputs: Unlabelled,
    chunks: Sequence[str],
    partial: PartialPredictions,
    table: Path,
    device: torch.device,
) -> list[str]:
    """Answers the chunks that are not answered yet; returns lines on them."""
    began = time.monotonic()
    bounds = dict(zip(chunks, chunk_bounds(len(inputs.frame)), strict=True))
    pending = [chunk for chunk in bounds if chunk not in partial]
    before = sum(stop - start for chunk, (start, stop) in bounds.items() if chunk in partial)
    if before:
        print(f"{before} of {len(inputs.frame)} answers are there, of an earlier command",
              file=sys.stderr)  # fmt: skip
    files = (inputs.files(*bounds[chunk]) for chunk in pending)
    answered = answer_files(served, files, settings.heatmaps, partial.request_id, device)

    def each() -> Iterator[Row]:
        for chunk, rows in zip(pending, answered, strict=True):
            if settings.heatmaps:
                _write_heatmaps(table, inputs, bounds[chunk][0], rows)
            partial.add(chunk, rows)
            yield from rows

    count = sum(bounds[chunk][1] - bounds[chunk][0] for chunk in pending)
    for _ in progress(each(), count, "predicting"):
        pass
    seconds = time.monotonic() - began
    if count:
        mlflow.log_metric("images_per_second", count / max(seconds, 1e-9))
        return [f"{count} answered in {in_words(seconds)}, {count / seconds:.0f} a second"]
    return []


def _write_heatmaps(table: Path, inputs: Unlabelled, start: int, rows: Sequence[Row]) -> None:
    """Writes the heat maps of rows as PNG files, and their paths into the rows."""
    folder = table.with_name(f"{table.stem}_heatmaps")
    folder.mkdir(exist_ok=True)
    names = inputs.frame.iloc[start : start + len(rows), 0]
    for number, (row, name) in enumerate(zip(rows, names, strict=True), start + 1):
        if row[HEATMAP] is not None:
            stem = plain(Path(name.rpartition("/")[2]).stem)
            file = folder / f"{number:06d}_{stem}.png"
            file.write_bytes(base64.b64decode(str(row[HEATMAP])))
            row[HEATMAP] = f"{folder.name}/{file.name}"


def _log_table(table: Path, count: int) -> list[str]:
    """Logs the table and its counts; returns lines on it."""
    columns = ["decision", "in_domain", "error"]
    told = pd.read_parquet(table.with_suffix(PARQUET), columns=columns)
    errors = told["error"].dropna()
    outside = int((told["in_domain"] == False).sum())  # noqa: E712, None is neither
    mlflow.log_metrics({"images": count, "errors": len(errors), "out_of_domain": outside})
    for file in (table, table.with_suffix(PARQUET)):
        mlflow.log_artifact(str(file), "predictions")
    decisions = Counter(told["decision"].dropna()).most_common()
    lines = [f"decisions     {', '.join(f'{name} {number}' for name, number in decisions)}"]
    if told["in_domain"].notna().any():
        lines.append(f"out of domain {outside} of {count}")
    if len(errors):
        kinds = Counter(errors).most_common(MOST_NAMED)
        named = "; ".join(f"{number} x {error}" for error, number in kinds)
        if others := len(errors) - sum(number for _, number in kinds):
            named += f"; {others} x others, see the column error"
        lines.append(f"not answered  {len(errors)} of {count} ({named})")
    return [*lines, f"table         {table.resolve()}, and {table.stem}{PARQUET} beside it"]
