"""HTML report of a comparison, and its short form as a run's description."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from medtl.evaluation.metrics import metric_named
from medtl.evaluation.model_comparison import Comparison, Outcome
from medtl.reporting.baseline_tables import against_baselines, baseline_section
from medtl.reporting.comparison_summary import nearest_source, summary
from medtl.reporting.html import Illustrated, Picture, Row, Table, render
from medtl.reporting.markdown import plain
from medtl.reporting.plots import training_comparison, tuning
from medtl.reporting.rounding import confidence_text

SHOWN = ("accuracy", "auroc", "f1")  # of the test split, beside the one that is compared
NOT_A_DEVICE = "For research. Not a medical device, not for diagnosis."
MARKED = 12  # arms with a mark of their own in the plot of the cost
DESCRIBED = 25  # rows of the table in a run's description
SETTINGS_HEAD = ("parameter", "given", "used")
NO_VALUE = ("", 0)  # of a cell: it has no such setting
CELL_FIELDS = {
    "architecture": "architecture",
    "weights": "weights",
    "transfer": "transfer",
    "classifier": "classifier",
    "hidden": "hidden",
    "cutoffs": "cutoff",
    "optimizers": "optimizer",
    "lr": "lr",
    "rates": "rates",
    "augment": "augment",
    "fractions": "fraction",
    "seeds": "seed",
}  # parameters that a study resolves for each cell


@dataclass(frozen=True)
class Subject:
    """Content of a report beside its numbers.

    Attributes:
        study: name of the study.
        title: its question.
        source: the paper; empty for a grid of the user's own.
        notes: facts of the paper, and choices of this project.
        data: name of the data set.
        data_notes: notes on reading the data.
        warnings: findings of the data report.
        counts: a row a split: `split`, `images`, `patients` and a column a class.
        sources: a row a backbone and source of weights: `architecture`, `seen_by`, `source`,
            `data`, `distance` from the target; empty where no source is known.
        sheet: some of the images.
        embedded: True for images that the project draws.
        settings: the study's parameters, as they were given.
        resolved: values of those parameters that `auto` or 0 stands for, and not by cell.
        pictures: of `convergence`, `depth`, `size`.
    """

    study: str
    title: str
    source: str
    notes: tuple[str, ...]
    data: str
    data_notes: tuple[str, ...]
    warnings: tuple[str, ...]
    counts: pd.DataFrame
    sources: pd.DataFrame
    sheet: Figure
    embedded: bool
    settings: Mapping[str, object]
    resolved: Mapping[str, object]
    pictures: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """Page in HTML, description of the run in Markdown, summary for the console."""

    html: str
    description: str
    summary: str


def report(subject: Subject, comparison: Comparison) -> Report:
    """Writes the report of a comparison with at least one finished cell."""
    paragraphs = summary(comparison, subject.embedded)
    if nearer := nearest_source(subject.sources, subject.data):
        paragraphs.insert(-1, nearer)
    if against := against_baselines(comparison):
        paragraphs.insert(-1, against)
    paragraphs[-1:-1] = [f"Warning of the data report: {line}." for line in subject.warnings]
    return Report(
        html=_page(subject, comparison, paragraphs),
        description=_description(subject, comparison, paragraphs),
        summary="\n".join(paragraphs),
    )


def _page(subject: Subject, comparison: Comparison, paragraphs: list[str]) -> str:
    return render(
        "comparison.html.jinja",
        title=f"{subject.study}: {subject.title}",
        subject=subject,
        disclaimer=NOT_A_DEVICE,
        paragraphs=paragraphs,
        scores=_scores(comparison),
        rates=_rates(comparison),
        pictures=list(_drawn(subject, comparison)),
        differences=_differences(comparison),
        baselines=baseline_section(comparison, _metrics(comparison)),
        costs=_costs(comparison),
        counts=_counts(subject),
        sources=_sources(subject) if len(subject.sources) else None,
        sheet=Picture.of(subject.sheet, f"Some training images of {subject.data}, by class"),
        settings=_settings(subject, comparison),
    )


def _scores(comparison: Comparison) -> Table:
    metrics = _metrics(comparison)
    tests = [f"test {metric_named(name).label}" for name in metrics]
    rows = []
    for each in comparison.cell_results:
        if each.outcome is None:
            rows.append(Row(each.name, failure=each.error))
            continue
        scores = comparison.scores[each.name]
        values = [str(scores[name]) for name in metrics]
        count = len(each.outcome.history)
        # a solved head and a classical classifier have one row, and no epochs
        trained = bool(each.outcome.lr) or count > 1
        epochs = f"{count} (best {each.outcome.best_epoch})" if trained else "none"
        rate = f"{each.outcome.lr:g}" if each.outcome.lr else "none"
        values += [f"{each.outcome.valid_auroc:.3f}", rate, epochs]
        rows.append(Row(each.name, values))
    images = len(comparison.cases.labels)
    caption = (
        f"Each cell once, on the same n = {images} test images; 95 % intervals over "
        f"{comparison.cases.unit}. The decision is the most probable class. The validation split "
        "chose the epoch."
    )
    return Table(caption, ["cell", *tests, "validation AUROC", "learning rate", "epochs"], rows)


def _rates(comparison: Comparison) -> Table | None:
    """Builds the table of candidates for learning rates; None where none was tried."""
    table = comparison.rates()
    if table.empty:
        return None
    rows = []
    for (cell, arm), tried in table.groupby(["cell", "arm"], sort=False):
        scores = [
            f"{each.lr:g}: {each.valid_auroc:.3f}" if each.best_epoch else f"{each.lr:g}: failed"
            for each in tried.itertuples()
        ]
        chosen = tried.loc[tried["chosen"], "lr"].iloc[0]
        rows.append(Row(arm, [cell, "; ".join(scores), f"{chosen:g}"]))
    caption = (
        "The learning rate of each arm was chosen by the validation AUROC of its first seed; ties "
        "by the validation loss. The test split was scored at the chosen rate alone. Arms that are "
        "not listed have no learning rate (a solved head, a classical classifier) or a given one."
    )
    return Table(caption, ["arm", "chosen by", "validation AUROC at each rate", "rate"], rows)


def _metrics(comparison: Comparison) -> tuple[str, ...]:
    """Returns the metrics that the tables of scores show."""
    return tuple(dict.fromkeys((comparison.metric, *SHOWN)))


def _drawn(subject: Subject, comparison: Comparison) -> Iterator[Picture]:
    """Yields the pictures of the scores."""
    metric = metric_named(comparison.metric).label
    arms = comparison.arms
    named = arms.rename(columns={"arm": "name", "score": "value"})
    figure = training_comparison.values_with_intervals(
        named, f"Test {metric}", f"Test {metric}", zero=False
    )
    yield Picture.of(figure, f"Test {metric} of every arm with its 95 % interval, over its seeds")
    if "convergence" in subject.pictures and (panels := _histories(comparison)):
        figure = training_comparison.convergence_curves(
            panels, "valid_accuracy", "Validation accuracy"
        )
        yield Picture.of(figure, "Validation accuracy after each epoch, first seed of each cell")
    if "depth" in subject.pictures:
        yield from _depths(arms, metric)
    if "size" in subject.pictures:
        curves = _by_size(arms)
        figure = training_comparison.score_against_size(curves, f"test {metric}")
        yield Picture.of(figure, f"Test {metric} against the share of the training images")


def _histories(comparison: Comparison) -> dict[str, dict[str, pd.DataFrame]]:
    """Returns the epochs of the first seed of each arm of several epochs, by architecture."""
    panels: dict[str, dict[str, pd.DataFrame]] = {}
    for each in comparison.cell_results:
        if each.outcome is not None and len(each.outcome.history) > 1:
            panel = panels.setdefault(each.architecture, {})
            panel.setdefault(_within(each.arm, each.architecture), each.outcome.history)
    return panels


def _depths(arms: pd.DataFrame, metric: str) -> Iterator[Picture]:
    """Yields the score by cut-off: of all architectures together, and of each by its layers."""
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
        yield Picture.of(figure, f"Test {metric} against the depth of fine-tuning")
    for architecture, (tables, order) in single.items():
        figure = tuning.score_against_cutoff(tables, order, f"test {metric} of {architecture}")
        yield Picture.of(figure, f"Test {metric} of {architecture} against the first trained layer")


def _by_size(arms: pd.DataFrame) -> dict[str, pd.DataFrame]:
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


def _differences(comparison: Comparison) -> Illustrated | None:
    table, metric = comparison.differences, metric_named(comparison.metric).label
    if table.empty:
        return None
    named = table.assign(name=table["b"] + ", against " + table["a"], value=table["difference"])
    figure = training_comparison.values_with_intervals(
        named, f"Differences in test {metric}", f"Difference in test {metric}", zero=True
    )
    rows = [
        Row(
            each["b"],
            [
                each["a"],
                f"{each['difference']:+.3f}",
                f"{each['low']:+.3f} to {each['high']:+.3f}",
                confidence_text(each["confidence"]),
                each["seeds"],
            ],
        )
        for _, each in table.iterrows()
    ]
    head = ["cell", "against", f"test {metric}", "95 % interval", "confidence", "seeds"]
    caption = (
        f"On the same n = {len(comparison.cases.labels)} test images, with 95 % intervals. The "
        "confidence that the cell is better is over 0.975 where the interval lies above 0."
    )
    text = f"Paired differences in test {metric} with their 95 % intervals"
    return Illustrated(Picture.of(figure, text), Table(caption, head, rows))


def _costs(comparison: Comparison) -> Illustrated:
    head = ["cell", "trained parameters", "trained compute", "share of the network's", "seconds"]
    rows = [
        Row(each.name, _cost(each.outcome))
        for each in comparison.cell_results
        if each.outcome is not None
    ]
    caption = (
        "Seconds on this machine, with its load at that time; they are no measure of a method. The "
        "part before a cut is computed by the first cell that needs it and cached for the others. "
        "Trainings at learning rates that were not chosen are left out. Compute is of one image in "
        "the forward pass."
    )
    arms = comparison.arms
    if arms["arm"].nunique() <= MARKED:
        arms = arms.assign(series=arms["arm"])
    elif arms["architecture"].nunique() > 1:
        arms = arms.assign(series=arms["architecture"] + ", " + arms["series"])
    metric = f"test {metric_named(comparison.metric).label}"
    figure = training_comparison.score_against_cost(arms, metric)
    return Illustrated(
        Picture.of(figure, f"{metric[:1].upper()}{metric[1:]} of every arm against compute"),
        Table(caption, head, rows),
    )


def _cost(outcome: Outcome) -> list[str]:
    return [
        f"{outcome.trained_parameters:,}",
        f"{outcome.trained_flops / 1e6:,.3g} MFLOP",
        f"{100 * outcome.trained_share:.1f} %",
        f"{outcome.seconds:.1f}",
    ]


def _counts(subject: Subject) -> Table:
    columns = [name for name in subject.counts.columns if name != "split"]
    rows = [
        Row(each["split"], [each[name] for name in columns])
        for _, each in subject.counts.iterrows()
    ]
    return Table("Images of each split and class", ["split", *columns], rows)


def _sources(subject: Subject) -> Table:
    rows = [
        Row(each.source, [each.data, each.seen_by, each.architecture, f"{each.distance:.2f}"])
        for each in subject.sources.itertuples()
    ]
    caption = (
        f"Distance of each source from {subject.data}, by the features of each network before its "
        "head: the Frechet distance of Gaussians with independent features, in units of their "
        "spread; 0 is alike. Features of a network were trained on its own source."
    )
    return Table(caption, ["source", "data", "seen by", "architecture", "distance"], rows)


def _settings(subject: Subject, comparison: Comparison) -> Table:
    """Builds the table of parameters, with the values that the cells used."""
    rows = []
    for name, given in subject.settings.items():
        used = subject.resolved.get(name, given)
        if name in CELL_FIELDS:
            used = _used(CELL_FIELDS[name], comparison)
        elif name == "epochs":
            used = _epochs(comparison)
        rows.append(Row(name, ["empty" if given == "" else given, "none" if used == "" else used]))
    return Table("Parameters as given, and the values that the cells used", SETTINGS_HEAD, rows)


def _used(field: str, comparison: Comparison) -> str:
    """Lists the distinct values of a field of the finished cells."""
    values = [
        each.outcome.lr if field == "lr" else each.settings.get(field, "")
        for each in comparison.cell_results
        if each.outcome is not None
    ]
    if field != "seed":
        values = [value for value in values if value not in NO_VALUE]
    texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return ", ".join(dict.fromkeys(texts)) or "none"


def _epochs(comparison: Comparison) -> str:
    """Formats the fewest and the most epochs that cells were trained for by gradient."""
    counts = [
        len(each.outcome.history)
        for each in comparison.cell_results
        if each.outcome is not None and each.outcome.lr
    ]
    if not counts:
        return "none"
    low, high = min(counts), max(counts)
    return str(high) if low == high else f"{low} to {high}"


def _within(arm: str, architecture: str) -> str:
    return arm.removeprefix(f"{architecture}, ")


def _description(subject: Subject, comparison: Comparison, paragraphs: list[str]) -> str:
    metric = metric_named(comparison.metric).label
    lines = [f"## {plain(subject.title)}", "", *(f"{plain(each)}\n" for each in paragraphs)]
    lines += [f"| cell | test {metric} | validation AUROC | trained compute |"]
    lines += ["| --- | --- | --- | --- |"]
    for each in comparison.cell_results[:DESCRIBED]:
        if each.outcome is None:
            values = f"failed: {plain(each.error[:80])} | |"
        else:
            score = comparison.scores[each.name][comparison.metric]
            share = f"{100 * each.outcome.trained_share:.1f} %"
            values = f"{score} | {each.outcome.valid_auroc:.3f} | {share}"
        lines.append(f"| {plain(each.name)} | {values} |")
    if len(comparison.cell_results) > DESCRIBED:
        lines.append(f"\n{len(comparison.cell_results) - DESCRIBED} more in `report/cells.csv`.")
    lines.append(f"\nThe whole report is the artifact `report/report.html`. {NOT_A_DEVICE}")
    return "\n".join(lines)
