"""Tables as text: CSV with any delimiter and encoding, compressed, Excel, Parquet."""

from __future__ import annotations

import codecs
import csv
import functools
import gzip
import io
import re
import zipfile
import zlib
from pathlib import Path

import pandas as pd

from medtl.errors import MedtlError

PACKED, EXCEL, PARQUET = ".gz", ".xlsx", ".parquet"
MOST_COLUMNS = 1000
"""Limit of a table; a file beyond it is not a list of images, and takes minutes to read."""

_DAMAGED = (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile)
_DELIMITERS = (",", ";", "\t", "|")
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_LINE = 2**20  # longest header, in bytes
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # no text in one byte a character


def read_text(file: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Reads a table as text, its column names without spaces around them.

    The delimiter is that of the header (comma, semicolon, tab or bar). The encoding is UTF-8, or
    by its byte order mark UTF-16, or else Windows-1252.

    Returns:
        The rows, and notes on the delimiter and the encoding if they are unusual.

    Raises:
        MedtlError: not a table, or a column name that is there twice.
    """
    suffix = file.suffix.casefold()
    notes: tuple[str, ...] = ()
    try:
        if suffix == EXCEL:
            frame = _excel(file)
        elif suffix == PARQUET:
            frame = _parquet(file)
        else:
            frame, notes = _separated(file)
    except _DAMAGED as error:
        reason = " ".join(str(error).split())
        kind = {EXCEL: "an Excel table", PARQUET: "a Parquet table"}.get(suffix, "a CSV file")
        raise MedtlError(f"{file} cannot be read as {kind} ({reason})") from error
    if not isinstance(frame.index, pd.RangeIndex):
        raise MedtlError(f"{file}: rows have more fields than there are column names; quote commas")
    frame.columns = frame.columns.astype(str).str.strip()
    again = frame.columns[frame.columns.duplicated()]
    if len(again):
        raise MedtlError(f"{file} has the column {again[0]} twice; give each a name of its own")
    return frame, notes


def header(file: Path) -> tuple[str, ...]:
    """Returns the column names of a table in text form; none if they cannot be read."""
    try:
        stat = file.stat()
    except OSError:
        return ()
    return _header(file, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(256)
def _header(file: Path, size: int, changed: int) -> tuple[str, ...]:
    # several sources look at one header; size and time of change tell a changed file
    if file.suffix.casefold() in (EXCEL, PARQUET):
        return ()
    try:
        with _opened(file) as opened:
            line = opened.readline(_LINE)
        encoding = _encoding(line)
    except _DAMAGED:
        return ()
    text = line.decode(encoding, "replace")
    return tuple(name.strip(' "\r\n') for name in _fields(text, _delimiter(text)))


def _separated(file: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    with _opened(file) as opened:
        data = opened.read()
    encoding = _encoding(data)
    start = data[:_LINE].decode(encoding, "replace").split("\n", 1)[0]
    delimiter = _delimiter(start)
    count = len(_fields(start, delimiter))
    if count > MOST_COLUMNS:
        raise ValueError(f"{count} columns, more than {MOST_COLUMNS}")
    frame = pd.read_csv(
        io.BytesIO(data), dtype=str, keep_default_na=False, encoding=encoding, sep=delimiter
    )
    notes = []
    if delimiter != ",":
        notes.append(f"the columns of {file.name} are separated by {_SPOKEN[delimiter]}")
    if encoding == "cp1252":
        notes.append(f"{file.name} is no UTF-8 and is read as Windows-1252")
    return frame, tuple(notes)


_SPOKEN = {";": "semicolons", "\t": "tabs", "|": "bars"}


def _opened(file: Path) -> io.BufferedIOBase:
    return gzip.open(file) if file.suffix.casefold() == PACKED else open(file, "rb")


def _encoding(data: bytes) -> str:
    for mark, name in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return name
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        if _CONTROL.search(data):
            raise ValueError("neither UTF-8, UTF-16 nor Windows-1252 text") from None
        return "cp1252"
    return "utf-8"


def _delimiter(line: str) -> str:
    """Returns the first delimiter that sets `path` or `label` apart, or that gives most columns.

    >>> _delimiter('path;"label, as read"'), _delimiter('path,label,"a;b;c;d"')
    (';', ',')
    """
    names = {sign: _fields(line, sign) for sign in _DELIMITERS}
    for sign, split in names.items():
        if len(split) > 1 and {"path", "label"} & {name.strip().casefold() for name in split}:
            return sign
    return max(names, key=lambda sign: len(names[sign]))


def _fields(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter), [])
    except csv.Error:
        return []


def _excel(file: Path) -> pd.DataFrame:
    try:
        return pd.read_excel(file, dtype=str, keep_default_na=False)
    except ImportError as error:
        raise ValueError("Excel tables need pip install openpyxl") from error
    except Exception as error:  # of a damaged file openpyxl raises almost anything
        raise ValueError(f"damaged: {error}") from error


def _parquet(file: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(file).map(_text).reset_index(drop=True)
    except Exception as error:  # of a damaged file pyarrow raises almost anything
        raise ValueError(f"damaged: {error}") from error


def _text(value: object) -> str:
    return "" if value is None or value != value else str(value)
