"""HTML pages from Jinja2 templates; every text in them is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

DPI = 110  # of pictures: sharp in print, small in the file

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


def page(title: str, body: Iterable[str]) -> str:
    """Builds a page of finished pieces of HTML."""
    template = ENVIRONMENT.from_string(
        '{% extends "page.html.jinja" %}{% block body %}{{ content }}{% endblock %}'
    )
    return template.render(title=title, content=Markup("\n".join(body)))


def element(tag: str, text: object, kind: str = "") -> str:
    """An element with a text, and a class where `kind` is given."""
    attribute = f' class="{escape(kind)}"' if kind else ""
    return f"<{tag}{attribute}>{escape(str(text))}</{tag}>"


def listing(items: Sequence[str]) -> str:
    """A list with a dot before each text."""
    return f"<ul>{''.join(element('li', item) for item in items)}</ul>"


def table(caption: str, head: Sequence[str], rows: Iterable[str]) -> str:
    """A table of `row`s; the cells of its head say so to screen readers."""
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    return (
        f'<div class="wide"><table>{element("caption", caption)}<thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def row(name: str, values: Sequence[object]) -> str:
    """A row of a table: its name, and its values as they are to be read."""
    cells = "".join(element("td", value) for value in values)
    return f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'


def failed_row(name: str, reason: str, width: int) -> str:
    """A row of a table, of `width` values, that has none but says why."""
    return (
        f'<tr class="failed"><th scope="row">{escape(name)}</th>'
        f'<td colspan="{width}">failed: {escape(reason)}</td></tr>'
    )


def picture(figure: Figure, told: str) -> str:
    """A picture within the page; `told` says what it shows, below it and to screen readers."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<figure><img alt="{escape(told)}" src="data:image/png;base64,{data}">'
        f"{element('figcaption', told)}</figure>"
    )
