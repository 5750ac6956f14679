"""Report on refused data: the reason, and every affected image."""

from __future__ import annotations

from medtl.data.refused import RefusedDataError
from medtl.evaluation.report import html

ROWS = 1000  # most rows of the table in the page; the CSV file has all


def refusal_report(error: RefusedDataError) -> str:
    """Renders the page as HTML."""
    table = error.table.head(ROWS)
    first, *others = table.columns
    rows = [html.row(str(name), values) for name, *values in table.to_numpy().tolist()]
    shown = "All" if len(table) == len(error.table) else f"The first {len(table)} of"
    caption = f"{shown} {len(error.table):,} affected images ({error.listing}.csv)"
    body = (
        html.element("h1", f"The data: {error.data}"),
        html.element("p", "Refused before any training.", "source"),
        html.element("p", str(error)),
        html.table(caption, [first, *others], rows),
    )
    return html.page(f"Data: {error.data}", body)
