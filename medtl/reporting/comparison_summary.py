"""Conclusions that the numbers of a comparison support, in sentences."""

from __future__ import annotations

import pandas as pd

from medtl.evaluation.metrics import metric_named
from medtl.evaluation.model_comparison import Comparison

NAMED = 6  # differences that are named in the text; all stand in the table


def summary(comparison: Comparison, embedded: bool) -> list[str]:
    """Writes the paragraphs: differences, convergence, learning rates, recommendation, limits.

    `embedded` is True for images that the project draws.
    """
    paragraphs = [
        " ".join([_counts(comparison), *_differences(comparison)]),
        " ".join(_convergence(comparison)),
        _rates(comparison),
        _pick(comparison),
        " ".join(_limits(comparison, embedded)),
    ]
    return [paragraph for paragraph in paragraphs if paragraph]


def chosen(arms: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Returns the best arm by validation AUROC, and the cheapest that is not clearly worse.

    Not clearly worse is within one standard error of the best (Breiman et al. 1984,
    Classification and regression trees: the one-standard-error rule); the cheapest trains with
    the fewest operations, of equals the one with the best validation AUROC. Only arms that learned
    from as many images as any are considered.
    """
    full = arms[arms["fraction"] == arms["fraction"].max()]
    best = full.loc[full["valid_auroc"].idxmax()]
    near = full[full["valid_auroc"] >= best["valid_auroc"] - best["valid_error"]]
    ranked = near.assign(worse=-near["valid_auroc"]).sort_values(["trained_flops", "worse"])
    return best, ranked.iloc[0]


def nearest_source(sources: pd.DataFrame, data: str) -> str:
    """Formats which of several sources is nearest to the data; '' for fewer than two.

    `sources` has a row a network and source: `architecture`, `seen_by`, `source`, `data`,
    `distance`.
    """
    if sources["source"].nunique() < 2:
        return ""
    nearest = sources.loc[sources.groupby(["architecture", "seen_by"])["distance"].idxmin()]
    votes = nearest["source"].value_counts()
    distances = "; ".join(
        f"by “{seen_by}” {', '.join(f'{row.distance:.2f} from “{row.source}”' for row in rows)}"
        for (_, seen_by), rows in (
            (key, list(group.itertuples()))
            for key, group in sources.groupby(["architecture", "seen_by"], sort=False)
        )
    )
    if len(votes) == 1:
        found = f"Every network sees {data} nearest to “{votes.index[0]}”"
    else:
        found = f"The networks do not agree which source {data} is nearest to"
    return f"{found} (distances: {distances})."


def _counts(comparison: Comparison) -> str:
    cells, failed = len(comparison.cell_results), len(comparison.failed)
    arms = len({each.arm for each in comparison.cell_results})
    alike = (
        f" in {_many(arms, 'arm', 'arms')} (cells that differ only in their seed)"
        if arms < cells
        else ""
    )
    scored = comparison.cases
    patients, groups = scored.patients, len(set(scored.groups.tolist()))
    of, joined = "", ""
    if scored.unit == "patients":
        of = f" of {_many(patients, 'patient', 'patients')}"
        if groups < patients:
            joined = f" ({groups}, as patients with an identical image count as one)"
    sentence = (
        f"{_many(cells, 'cell', 'cells')}{alike}, scored on the same "
        f"{len(scored.labels)} test images{of}; intervals are over {scored.unit}{joined}."
    )
    if failed:
        sentence += f" {failed} of them failed; the table says why."
    return sentence


def _differences(comparison: Comparison) -> list[str]:
    table, metric = comparison.differences, metric_named(comparison.metric).label
    if table.empty:
        return []
    off_zero = table[(table["low"] > 0) | (table["high"] < 0)]
    total, clear = len(table), len(off_zero)
    sentences = []
    if clear:
        strongest = off_zero.reindex(off_zero["difference"].abs().sort_values().index[::-1])
        named = [_beaten(row) for _, row in strongest.head(NAMED).iterrows()]
        more = f"; and {clear - NAMED} more in the table" if clear > NAMED else ""
        sentences.append(
            f"Of {_many(total, 'difference', 'differences')} in test {metric}, {clear} "
            f"{'has' if clear == 1 else 'have'} a 95 % interval off zero: "
            f"{'; '.join(named)}{more}."
        )
    if clear < total:
        which = (
            f"In the other {total - clear}"
            if clear
            else f"In {'the one' if total == 1 else f'all {total}'} paired "
            f"{'difference' if total == 1 else 'differences'} in test {metric}"
        )
        sentences.append(
            f"{which} the 95 % interval holds zero: this test split cannot tell which side is "
            "better, and does not show that they are equal."
        )
    if total > 1:
        sentences.append(
            f"Of {total} such intervals, about {0.05 * total:.1f} would be off zero by chance if "
            "nothing differed."
        )
    return sentences


def _beaten(row: pd.Series) -> str:
    better, worse = (row["b"], row["a"]) if row["difference"] > 0 else (row["a"], row["b"])
    bounds = sorted(abs(row[name]) for name in ("low", "high"))
    return (
        f"“{better}” is {abs(row['difference']):.3f} ({bounds[0]:.3f} to {bounds[1]:.3f}) "
        f"above “{worse}”"
    )


def _convergence(comparison: Comparison) -> list[str]:
    """Compares pairs after the first epoch, if both sides have several epochs."""
    first = {
        each.name: (each.series, each.outcome.history["valid_accuracy"].iloc[0])
        for each in comparison.cell_results
        if each.outcome is not None and len(each.outcome.history) > 1
    }
    kinds: dict[tuple[str, str], list[bool]] = {}
    for a, b in comparison.pairs:
        if a in first and b in first and first[a][0] != first[b][0]:
            kinds.setdefault((first[a][0], first[b][0]), []).append(first[b][1] > first[a][1])
    return [
        f"After the first epoch “{b}” had the higher validation accuracy than “{a}” in "
        f"{sum(ahead)} of {_many(len(ahead), 'pair', 'pairs')}."
        for (a, b), ahead in kinds.items()
    ]


def _rates(comparison: Comparison) -> str:
    """Formats how learning rates were chosen, and where the choice fell on the end of its range."""
    table = comparison.rates()
    if table.empty:
        return ""
    taken = table[table["chosen"]].drop_duplicates("arm")
    ends = table.groupby("arm")["lr"].agg(["min", "max"]).loc[taken["arm"]]
    lowest = int((taken["lr"].to_numpy() == ends["min"].to_numpy()).sum())
    highest = int((taken["lr"].to_numpy() == ends["max"].to_numpy()).sum())
    counts = taken["lr"].value_counts().sort_index()
    named = ", ".join(f"{rate:g} in {count}" for rate, count in counts.items())
    sentence = (
        f"The validation split chose the learning rate of {_many(len(taken), 'arm', 'arms')}, by "
        f"the first seed of each: {named}."
    )
    tried = table.groupby("arm").size().max()
    if tried > 2 and (lowest or highest):
        sentence += (
            f" In {lowest} it is the lowest and in {highest} the highest that was tried: rates "
            "names others."
        )
    return sentence


def _pick(comparison: Comparison) -> str:
    best, cheapest = chosen(comparison.arms)
    score = metric_named(comparison.metric).label
    sentence = (
        f"By the validation split the best is “{best['arm']}” (AUROC {best['valid_auroc']:.3f}, "
        f"standard error {best['valid_error']:.3f}; test {score} {_score(best)}), at {_cost(best)}."
    )
    if cheapest["arm"] == best["arm"]:
        return (
            f"{sentence} No arm with fewer trained operations comes within one standard error of "
            "it."
        )
    return (
        f"{sentence} The cheapest within one standard error of it is “{cheapest['arm']}” "
        f"(AUROC {cheapest['valid_auroc']:.3f}; test {score} {_score(cheapest)}), at "
        f"{_cost(cheapest)}: the choice where compute counts."
    )


def _score(row: pd.Series) -> str:
    return f"{row['score']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _cost(row: pd.Series) -> str:
    return (
        f"{row['trained_parameters']:,.0f} trained parameters and "
        f"{100 * row['trained_share']:.1f} % of the network's compute in each step"
    )


def _limits(comparison: Comparison, embedded: bool) -> list[str]:
    sentences = [
        "Limits: the scores hold for images like those of this one test split.",
        "Nothing was chosen by test scores; the highest of many is too high by chance.",
    ]
    if comparison.arms["seeds"].max() > 1:
        sentences.append("Intervals cover the choice of test cases, not that of the seeds.")
    else:
        sentences.append(
            "Each cell was trained once, with one seed: how much another seed would change it was "
            "not measured."
        )
    if not comparison.rates().empty:
        sentences.append(
            "The validation AUROC of an arm whose learning rate was chosen is the highest of "
            "several, and so slightly optimistic beside that of an arm without a choice."
        )
    if embedded:
        sentences.append(
            "The images are drawings of this project: the numbers show how to read the report, "
            "and say nothing about patients."
        )
    return sentences


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"
