"""HTML pages from Jinja2 templates; every text in them is escaped."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

DPI = 110  # of pictures: sharp in print, small in the file

NUMBER = re.compile(r"[-+<>=~ ]*\d")  # begins a number, or an interval

ENVIRONMENT = Environment(
    loader=PackageLoader("medtl.reporting"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)


@dataclass(frozen=True)
class Row:
    """Row of a table: its name and formatted values, or the reason for their absence."""

    name: str
    values: Sequence[object] = ()
    failure: str = ""


@dataclass(frozen=True)
class Table:
    """Table with a caption; `head` names the column of row names, too."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Row]

    def is_text(self, place: int) -> bool:
        """Returns whether most values of the column at `place` of the rows are no numbers.

        `none` and empty values do not count.

        >>> rows = [Row("a", ["0.9 (0.8 to 1)", "none", "vgg11"]), Row("b", ["none", "", "none"])]
        >>> [Table("", ["", "", "", ""], rows).is_text(place) for place in range(3)]
        [False, False, True]
        """
        values = [str(row.values[place]) for row in self.rows if place < len(row.values)]
        given = [value for value in values if value not in ("", "none")]
        return 2 * sum(NUMBER.match(value) is not None for value in given) < len(given)


@dataclass(frozen=True)
class Picture:
    """Picture within a page: base64 of a PNG file, and its description."""

    png: str
    text: str

    @classmethod
    def of(cls, figure: Figure, text: str) -> Picture:
        """Encodes a figure; `text` stands below it and describes it to screen readers."""
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=DPI)
        return cls(base64.b64encode(file.getvalue()).decode(), text)


@dataclass(frozen=True)
class Illustrated:
    """Table and a picture of the same numbers."""

    picture: Picture
    table: Table


def render(template: str, **values: object) -> str:
    """Fills in a template of `medtl/reporting/templates`: one page without other files."""
    return ENVIRONMENT.get_template(template).render(values)
