"""The few pieces of HTML that a report is made of; every text that goes in is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

from matplotlib.figure import Figure

DPI = 110  # of pictures: sharp in print, small in the file

STYLE = """
:root { color-scheme: light; }
body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem; background: #fff; color: #1f2328;
  font: 16px/1.55 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin-bottom: .2rem; }
h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #e3e6ea; }
.source, figcaption, caption { color: #57606a; font-size: .9rem; }
.summary { background: #f6f8fa; border-left: 4px solid #0072b2; padding: .4rem 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; width: 100%; }
caption { text-align: left; padding: .3rem 0; }
th, td { padding: .28rem .55rem; border-bottom: 1px solid #e3e6ea; text-align: right;
  vertical-align: top; font-variant-numeric: tabular-nums; }
th { background: #f6f8fa; }
th:first-child, td.text { text-align: left; }
tr.failed td { color: #8c2f00; text-align: left; }
figure { margin: 1.2rem 0; break-inside: avoid; }
img { max-width: 100%; height: auto; }
@media print {
  body { margin: 0; max-width: none; font-size: 11pt; }
  .wide { overflow: visible; }
  table { font-size: 8pt; }
  tr { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole document that needs no other file and no network."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


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
