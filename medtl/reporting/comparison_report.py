"""HTML report of a comparison, and its short form as a run's description."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from medtl.evaluation.model_comparison import CellResult, Comparison
from medtl.reporting import html
from medtl.reporting.baseline_tables import against_baselines, baseline_tables
from medtl.reporting.comparison_summary import METRICS, nearest_source, summary
from medtl.reporting.markdown import plain
from medtl.reporting.plots import training_comparison, tuning

SHOWN = ("accuracy", "auroc", "f1")  # of the test split, beside the one that is compared
NOT_A_DEVICE = "For research. Not a medical device, not for diagnosis."
DESCRIBED = 25  # rows of the table in a run's description


@dataclass(frozen=True)
class Subject:
    """Subject of a report, apart from its numbers.

    Attributes:
        study: its name.
        title: what it asks.
        source: the paper, or empty.
        notes: what is known of the paper, what is a choice of this project.
        data: the data set's name.
        data_notes: what a reader should know of the data.
        counts: a row a split: `split`, `images`, `patients` and a column a class.
        sources: a row a backbone and what one was pretrained on: `architecture`, `seen_by`,
            `source`, `data`, `distance` from the target; empty where nothing is known of it.
        sheet: some of the images.
        embedded: whether they are drawn by the project.
        settings: the study's parameters by their names.
        pictures: which are drawn, of `convergence`, `depth`, `size`.
    """

    study: str
    title: str
    source: str
    notes: tuple[str, ...]
    data: str
    data_notes: tuple[str, ...]
    counts: pd.DataFrame
    sources: pd.DataFrame
    sheet: Figure
    embedded: bool
    settings: Mapping[str, object]
    pictures: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """`html` for the reader, `description` in Markdown for the run, `summary` for the console."""

    html: str
    description: str
    summary: str


def report(subject: Subject, comparison: Comparison) -> Report:
    """Writes the report of a comparison in which at least one contender has an outcome."""
    paragraphs = summary(comparison, subject.embedded)
    if nearer := nearest_source(subject.sources, subject.data):
        paragraphs.insert(-1, nearer)
    if against := against_baselines(comparison):
        paragraphs.insert(-1, against)
    return Report(
        html=html.page(f"{subject.study}: {subject.title}", _body(subject, comparison, paragraphs)),
        description=_description(subject, comparison, paragraphs),
        summary="\n".join(paragraphs),
    )


def _body(subject: Subject, comparison: Comparison, paragraphs: list[str]) -> Iterator[str]:
    yield html.element("h1", subject.title)
    after = f", after {subject.source}" if subject.source else ""
    yield html.element("p", f"Study {subject.study}{after}, on {subject.data}.", "source")
    yield html.element("p", NOT_A_DEVICE, "source")
    yield html.element("h2", "What the numbers allow one to say")
    yield f'<div class="summary">{"".join(html.element("p", each) for each in paragraphs)}</div>'
    yield html.element("h2", "Scores")
    yield _scores(comparison)
    yield from _rates(comparison)
    yield from _drawn(subject, comparison)
    yield html.element("h2", "Paired differences")
    yield from _differences(comparison)
    if comparison.beside.references or comparison.beside.notes:
        yield html.element("h2", "Baselines")
        yield from baseline_tables(comparison, _metrics(comparison))
    yield html.element("h2", "Cost")
    yield from _costs(comparison)
    yield html.element("h2", "The data")
    yield _counts(subject)
    if subject.data_notes:
        yield html.listing(subject.data_notes)
    if len(subject.sources):
        yield html.element("h2", "What the networks were pretrained on")
        yield _sources(subject)
    yield html.picture(subject.sheet, f"Some training images of {subject.data}, by class")
    yield html.element("h2", "How it was made")
    yield html.listing(subject.notes)
    rows = [html.row(name, [value]) for name, value in subject.settings.items()]
    yield html.table("Settings of all cells", ["parameter", "value"], rows)


def _scores(comparison: Comparison) -> str:
    metrics = _metrics(comparison)
    tests = [f"test {METRICS[name]}" for name in metrics]
    head = ["cell", *tests, "validation AUROC", "learning rate", "epochs"]
    rows = []
    for each in comparison.cell_results:
        if each.outcome is None:
            rows.append(html.failed_row(each.name, each.error, len(head) - 1))
            continue
        scores = comparison.scores[each.name]
        values = [str(scores[name]) for name in metrics]
        epochs = f"{len(each.outcome.history)} (best {each.outcome.best_epoch})"
        rate = f"{each.outcome.lr:g}" if each.outcome.lr else "none"
        values += [f"{each.outcome.valid_auroc:.3f}", rate, epochs]
        rows.append(html.row(each.name, values))
    caption = (
        "Each cell once. Test scores with their 95 % intervals; the "
        "decision is the most probable class. The validation split chose the epoch."
    )
    return html.table(caption, head, rows)


def _rates(comparison: Comparison) -> Iterator[str]:
    """The candidates for learning rates and their validation scores, where any were tried."""
    table = comparison.rates()
    if table.empty:
        return
    yield html.element("h2", "Learning rates")
    rows = []
    for (cell, arm), tried in table.groupby(["cell", "arm"], sort=False):
        scores = [
            f"{each.lr:g}: {each.valid_auroc:.3f}" if each.best_epoch else f"{each.lr:g}: failed"
            for each in tried.itertuples()
        ]
        chosen = tried.loc[tried["chosen"], "lr"].iloc[0]
        rows.append(html.row(arm, [cell, "; ".join(scores), f"{chosen:g}"]))
    caption = (
        "The learning rate of each arm was chosen by the validation AUROC of its first seed, of "
        "equal ones by the validation loss. The test split was scored at the chosen rate alone. "
        "Arms that are not here have no learning rate (a head that was solved, a classical "
        "classifier), or have one that was given."
    )
    yield html.table(caption, ["arm", "chosen by", "validation AUROC at each rate", "rate"], rows)


def _metrics(comparison: Comparison) -> tuple[str, ...]:
    """Returns the metrics that the tables of scores show."""
    return tuple(dict.fromkeys((comparison.metric, *SHOWN)))


def _drawn(subject: Subject, comparison: Comparison) -> Iterator[str]:
    metric = METRICS[comparison.metric]
    arms = comparison.arms
    named = arms.rename(columns={"arm": "name", "score": "value"})
    figure = training_comparison.values_with_intervals(
        named, f"Test {metric}", f"Test {metric}", zero=False
    )
    yield html.picture(figure, f"Test {metric} of every cell with its 95 % interval")
    if "convergence" in subject.pictures and (panels := _histories(comparison)):
        figure = training_comparison.convergence_curves(
            panels, "valid_accuracy", "Validation accuracy"
        )
        yield html.picture(figure, "Validation accuracy after each epoch, first seed of each cell")
    if "depth" in subject.pictures:
        yield from _depths(arms, metric)
    if "size" in subject.pictures:
        curves = _by_place(arms)
        figure = training_comparison.score_against_size(curves, f"test {metric}")
        yield html.picture(figure, f"Test {metric} against the share of the training images")


def _histories(comparison: Comparison) -> dict[str, dict[str, pd.DataFrame]]:
    """Returns the epochs of the first seed of each arm of several epochs, by architecture."""
    panels: dict[str, dict[str, pd.DataFrame]] = {}
    for each in comparison.finished:
        if len(each.outcome.history) > 1:
            panel = panels.setdefault(each.architecture, {})
            panel.setdefault(_within(each.arm, each.architecture), each.outcome.history)
    return panels


def _depths(arms: pd.DataFrame, metric: str) -> Iterator[str]:
    """The score over the cut-offs: of all architectures together, and of each with its layers."""
    full = arms[arms["fraction"] == arms["fraction"].max()]
    curves, single = {}, {}
    for architecture, rows in full.groupby("architecture", sort=False):
        ordered = rows.sort_values("place", kind="stable")
        order = list(dict.fromkeys(ordered["cutoff"]))
        if len(order) < 2:
            continue
        tables = dict(list(ordered.groupby("series", sort=False)))
        single[architecture] = (tables, order)
        for name, table in tables.items():
            label = f"{architecture}, {name}" if len(tables) > 1 else architecture
            curves[label] = table.drop_duplicates("cutoff")
    if len(single) > 1:
        figure = training_comparison.score_against_depth(curves, f"test {metric}")
        yield html.picture(figure, f"Test {metric} against how deeply each network was trained")
    for architecture, (tables, order) in single.items():
        figure = tuning.score_against_cutoff(tables, order, f"test {metric} of {architecture}")
        told = f"Test {metric} of {architecture} against the first layer that is trained"
        yield html.picture(figure, told)


def _by_place(arms: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Returns the arms of each curve over the size of the training set."""
    several = arms["architecture"].nunique() > 1
    keys = ["architecture", "series", "cutoff"]
    curves = {}
    for (architecture, series, cutoff), rows in arms.groupby(keys, sort=False):
        parts = [architecture] if several else []
        parts += [series or architecture]
        parts += [cutoff] if arms["cutoff"].nunique() > 1 else []
        curves[", ".join(parts)] = rows
    return curves


def _differences(comparison: Comparison) -> Iterator[str]:
    table, metric = comparison.differences, METRICS[comparison.metric]
    if table.empty:
        yield html.element("p", "Nothing in this study is paired.")
        return
    named = table.assign(name=table["b"] + ", against " + table["a"], value=table["difference"])
    figure = training_comparison.values_with_intervals(
        named, f"Differences in test {metric}", f"Difference in test {metric}", zero=True
    )
    yield html.picture(figure, f"Paired differences in test {metric} with their 95 % intervals")
    rows = [
        html.row(
            each["b"],
            [
                each["a"],
                f"{each['difference']:+.3f}",
                f"{each['low']:+.3f} to {each['high']:+.3f}",
                f"{each['confidence']:.3f}",
                each["seeds"],
            ],
        )
        for _, each in table.iterrows()
    ]
    head = ["cell", "against", f"test {metric}", "95 % interval", "confidence", "seeds"]
    caption = (
        "On the same test cases, with 95 % intervals. The confidence that the cell is the better "
        "one is over 0.975 where the interval lies above 0."
    )
    yield html.table(caption, head, rows)


def _costs(comparison: Comparison) -> Iterator[str]:
    head = ["cell", "seconds", "trained parameters", "trained compute", "of the network's"]
    rows = [html.row(each.name, _cost(each)) for each in comparison.finished]
    caption = (
        "Seconds on this machine; what comes before a cut is computed by the first cell that needs "
        "it and read by the others. Trainings at learning rates that were not chosen are left "
        "out. Compute is of one image in the forward pass."
    )
    yield html.table(caption, head, rows)
    arms = comparison.arms
    if arms["architecture"].nunique() > 1:
        arms = arms.assign(series=arms["architecture"] + ", " + arms["series"])
    metric = f"test {METRICS[comparison.metric]}"
    yield html.picture(
        training_comparison.score_against_cost(arms, metric), f"{metric} against seconds"
    )


def _cost(cell_result: CellResult) -> list[str]:
    outcome = cell_result.outcome
    return [
        f"{outcome.seconds:.1f}",
        f"{outcome.trained_parameters:,}",
        f"{outcome.trained_flops / 1e6:,.1f} MFLOP",
        f"{100 * outcome.trained_share:.1f} %",
    ]


def _counts(subject: Subject) -> str:
    columns = [name for name in subject.counts.columns if name != "split"]
    rows = [
        html.row(each["split"], [each[name] for name in columns])
        for _, each in subject.counts.iterrows()
    ]
    return html.table("Images of each split and class", ["split", *columns], rows)


def _sources(subject: Subject) -> str:
    rows = [
        html.row(each.source, [each.data, each.seen_by, each.architecture, f"{each.distance:.2f}"])
        for each in subject.sources.itertuples()
    ]
    caption = (
        f"Distance of each source from {subject.data}, by the features of each network before its "
        "head: the Frechet distance of Gaussians with independent features, in units of their "
        "spread; 0 is alike. A network sees its own source with a trained eye."
    )
    head = ["source", "data", "seen by", "architecture", "distance"]
    return html.table(caption, head, rows)


def _within(arm: str, architecture: str) -> str:
    return arm.removeprefix(f"{architecture}, ")


def _description(subject: Subject, comparison: Comparison, paragraphs: list[str]) -> str:
    metric = METRICS[comparison.metric]
    lines = [f"## {plain(subject.title)}", "", *(f"{plain(each)}\n" for each in paragraphs)]
    lines += [f"| cell | test {metric} | validation AUROC | seconds |", "| --- | --- | --- | --- |"]
    for each in comparison.cell_results[:DESCRIBED]:
        if each.outcome is None:
            values = f"failed: {plain(each.error[:80])} | |"
        else:
            score = comparison.scores[each.name][comparison.metric]
            values = f"{score} | {each.outcome.valid_auroc:.3f} | {each.outcome.seconds:.1f}"
        lines.append(f"| {plain(each.name)} | {values} |")
    if len(comparison.cell_results) > DESCRIBED:
        lines.append(f"\n{len(comparison.cell_results) - DESCRIBED} more in `report/cells.csv`.")
    lines.append(f"\nThe whole report is the artifact `report/report.html`. {NOT_A_DEVICE}")
    return "\n".join(lines)
