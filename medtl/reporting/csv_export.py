"""CSV output that is safe against formula injection in spreadsheets.

Spreadsheets evaluate cells that begin with certain characters as formulas, which can send other
cells elsewhere. As OWASP's page on CSV injection recommends, such texts are prefixed with an
apostrophe; numbers are unchanged.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

# Characters that begin a formula (full-width ones too), after spaces that are skipped. Text with
# leading apostrophes gets one more, so that removal is unambiguous.
_FORMULA = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")


def write_csv(frame: pd.DataFrame, path: Path | str) -> None:
    """Writes a table with escaped texts and column names."""
    harmless(frame).to_csv(path, index=False)


def harmless(frame: pd.DataFrame) -> pd.DataFrame:
    """Adds an apostrophe before each text that a spreadsheet would evaluate as a formula."""
    columns = [list(map(_marked, column)) if _has_text(column) else column.array
               for _, column in frame.items()]  # fmt: skip
    made = pd.DataFrame(dict(enumerate(columns)), index=frame.index)
    made.columns = [_marked(name) for name in frame.columns]
    return made


def as_written(frame: pd.DataFrame) -> pd.DataFrame:
    """Removes the apostrophes of `write_csv` from a table of texts."""
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
