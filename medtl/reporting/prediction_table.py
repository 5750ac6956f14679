"""Table of predictions: a row a sample, as CSV and as Parquet."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from medtl.label_syntax import BETWEEN
from medtl.reporting.csv_export import harmless

CSV, PARQUET = ".csv", ".parquet"
KEY = b"medtl.predictions"  # in the metadata of the Parquet file: of which model and files it is
_ROWS = 4096  # written at a time
_NUMBERS = ("probability",)
_FLAGS = ("in_domain",)


def own_columns(frame: pd.DataFrame, answers: Sequence[str]) -> pd.DataFrame:
    """Renames columns of the input that have the name of a column of answers to `csv_NAME`."""
    names: dict[str, str] = {}
    for name in frame:
        own = name
        while own in answers or (own != name and own in frame):
            own = f"csv_{own}"
        names[name] = own
    return frame.rename(columns=names)


def answer_columns(fields: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Returns the columns of answers: `probabilities` is a column `probability_CLASS` a class."""
    columns: list[str] = []
    for field in fields:
        each = field == "probabilities"
        columns += [f"probability_{name}" for name in classes] if each else [field]
    return columns


def flat(row: Mapping[str, object]) -> dict[str, object]:
    """Converts an answer to values of `answer_columns`; a list is joined by |."""
    values: dict[str, object] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            values |= {f"probability_{each}": number for each, number in value.items()}
        else:
            values[name] = BETWEEN.join(map(str, value)) if isinstance(value, list) else value
    return values


def write_prediction_table(
    file: Path,
    inputs: pd.DataFrame,
    answers: Iterable[Mapping[str, object]],
    columns: Sequence[str],
    about: Mapping[str, object],
) -> None:
    """Writes the table as CSV, and beside it as Parquet with `about` in its metadata.

    Each file is complete or not there. Texts of the CSV are escaped for spreadsheets.

    Args:
        file: the CSV.
        inputs: columns of the input, all text, N rows.
        answers: N answers, in the order of `inputs`.
        columns: of `answer_columns`.
        about: what the table is made of.
    """
    schema = pa.schema([*((name, pa.string()) for name in inputs), *map(_column, columns)])
    schema = schema.with_metadata({KEY: json.dumps(about).encode()})
    with (
        _replaced(file) as text,
        _replaced(file.with_suffix(PARQUET)) as binary,
        pq.ParquetWriter(binary, schema) as writer,
        text.open("w", newline="", encoding="utf-8") as opened,
    ):
        for start, rows in _blocks(answers):
            told = pd.DataFrame([flat(row) for row in rows], columns=columns, dtype=object)
            given = inputs.iloc[start : start + len(rows)].reset_index(drop=True)
            block = pd.concat([given, told], axis=1)
            harmless(block).to_csv(opened, index=False, header=start == 0)
            writer.write_table(pa.Table.from_pandas(block, schema, preserve_index=False))


def table_about(file: Path) -> Mapping[str, object] | None:
    """Returns what a finished table is made of; None if it is missing or of another origin."""
    other = file.with_suffix(PARQUET)
    if not (file.is_file() and other.is_file()):
        return None
    try:
        metadata = pq.read_schema(other).metadata or {}
        return json.loads(metadata[KEY])
    except (OSError, ValueError, KeyError):  # pyarrow's own errors are ValueErrors
        return None


def _column(name: str) -> tuple[str, pa.DataType]:
    if name in _FLAGS:
        return name, pa.bool_()
    numbers = name in _NUMBERS or name.startswith("probability_")
    return name, pa.float64() if numbers else pa.string()


def _blocks(
    answers: Iterable[Mapping[str, object]],
) -> Iterator[tuple[int, list[Mapping[str, object]]]]:
    start, rows = 0, list[Mapping[str, object]]()
    for row in answers:
        rows.append(row)
        if len(rows) == _ROWS:
            yield start, rows
            start, rows = start + _ROWS, []
    if rows or not start:
        yield start, rows


@contextmanager
def _replaced(file: Path) -> Iterator[Path]:
    """Yields a file beside `file` that takes its place when the block succeeds."""
    number, name = tempfile.mkstemp(prefix=f".{file.stem}-", suffix=file.suffix, dir=file.parent)
    os.close(number)
    written = Path(name)
    try:
        yield written
        written.chmod(0o666 & ~_umask())
        with written.open("rb") as opened:
            os.fsync(opened.fileno())
        written.replace(file)
    finally:
        written.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
