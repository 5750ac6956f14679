"""HTML page with the trials of a search: a table that sorts, with links to their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medtl.reporting.html import render

RELOAD = 10  # seconds between two reloads of the page of a running search
ORDER = ("complete", "running", "pruned", "failed")


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    Attributes:
        number: of the trial.
        state: complete, running, pruned or failed.
        score: validation AUROC, of an unfinished trial its last one; None without an epoch.
        params: values of the search parameters, numbers or names.
        seconds: how long it took, None while it runs.
        note: why it was tried, or its error.
        address: page of its run; empty for none.
    """

    number: int
    state: str
    score: float | None
    params: Mapping[str, object]
    seconds: float | None
    note: str
    address: str


@dataclass(frozen=True)
class _Cell:
    """Cell of the table: a number or a name, which sorts by `order`, without one by itself."""

    text: str
    order: float | None = None
    address: str = ""
    named: bool = False


@dataclass(frozen=True)
class _Row:
    """Row of the table."""

    number: int
    state: str
    cells: list[_Cell]


def leaderboard_page(
    title: str,
    status: str,
    trials: Sequence[TrialRow],
    cutoffs: Sequence[str],
    place: str,
    command: str,
    running: bool,
) -> str:
    """Returns the page: complete trials first, the best on top.

    Args:
        title: of the page.
        status: line below it.
        trials: rows in any order.
        cutoffs: names in forward order, by which the column `cutoff` sorts.
        place: address of this page.
        command: that starts the UI of the links.
        running: True to reload the page every few seconds.
    """
    ranked = sorted(trials, key=_rank)
    names = list(dict.fromkeys(name for each in ranked for name in each.params))
    head = ["trial", "score", "state", *names, "seconds", "note"]
    rows = [_row(each, names, cutoffs) for each in ranked]
    best = next((each.number for each in ranked if each.state == "complete"), None)
    return render(
        "leaderboard.html.jinja",
        title=title,
        status=status,
        head=head,
        named={head[place] for row in rows for place, cell in enumerate(row.cells) if cell.named},
        rows=rows,
        best=best,
        place=place,
        command=command,
        seconds=RELOAD if running else 0,
    )


def _rank(trial: TrialRow) -> tuple[int, float, int]:
    score = float("-inf") if trial.score is None else trial.score
    return ORDER.index(trial.state), -score, trial.number


def _row(trial: TrialRow, names: Sequence[str], cutoffs: Sequence[str]) -> _Row:
    cells = [
        _Cell(str(trial.number), trial.number, trial.address),
        _number(trial.score, "{:.4f}"),
        _Cell(trial.state, named=True),
    ]
    for name in names:
        value = trial.params.get(name)
        if isinstance(value, int | float):
            cells.append(_number(value, "{:.3g}"))
        else:
            place = cutoffs.index(value) if name == "cutoff" and value in cutoffs else None
            cells.append(_Cell("" if value is None else str(value), place, named=True))
    cells += [_number(trial.seconds, "{:.0f}"), _Cell(trial.note, named=True)]
    return _Row(trial.number, trial.state, cells)


def _number(value: float | None, form: str) -> _Cell:
    return _Cell("") if value is None else _Cell(form.format(value), value)
