"""CSV files that are opened in a spreadsheet: no text in them is run as a formula.

Spreadsheets take a cell that begins with one of a few signs for a formula, which can send the other
cells elsewhere. As OWASP's page on CSV injection advises, an apostrophe is put before such a text;
a number stays as it is.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

# The signs with which a formula begins (those of full width too), and the spaces that are skipped
# before one. What has apostrophes before it already gets one more, so that one can be taken off.
_FORMULA = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")


def write_csv(frame: pd.DataFrame, path: Path | str) -> None:
    """Writes a table whose texts, and names of columns, are harmless in a spreadsheet."""
    harmless(frame).to_csv(path, index=False)


def harmless(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before each text that a spreadsheet would run as a formula."""
    columns = [list(map(_marked, column)) if _has_text(column) else column.array
               for _, column in frame.items()]  # fmt: skip
    made = pd.DataFrame(dict(enumerate(columns)), index=frame.index)
    made.columns = [_marked(name) for name in frame.columns]
    return made


def as_written(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of texts that `write_csv` wrote, as it was before."""
    made = frame.map(_unmarked)
    made.columns = [_unmarked(name) for name in frame.columns]
    return made


def _has_text(column: pd.Series) -> bool:
    return not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column))


def _marked(value: object) -> object:
    if isinstance(value, str) and _FORMULA.match(value) and not _is_number(value):
        return f"'{value}"
    return value


def _unmarked(value: object) -> object:
    if isinstance(value, str) and value.startswith("'") and _FORMULA.match(value):
        return value[1:]
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
