"""HTML report of a data set before training, and of refused data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.data.duplicates import identical_under_two_patients
from medtl.data.label_encoding import membership_matrix
from medtl.data.quality.checks import DataFacts
from medtl.data.quality.near_duplicates import IDENTICAL, NEAR
from medtl.data.quality.shortcuts import ALL, Shortcuts
from medtl.data.quality.turned_copies import MIRRORED, TURNED
from medtl.data.refused_data import RefusedDataError
from medtl.evaluation.confidence_intervals import mean_score
from medtl.reporting.html import Picture, Row, Table, render
from medtl.reporting.plots import data_quality

CLEAR = 0.6  # AUROC; an interval above it says that a shortcut is there
RESAMPLES = 1000
NAMED = 3  # examples in a line
NOTHING = "Nothing stands out: no copies of one image in two splits or under two labels"


def shortcut_table(shortcuts: Shortcuts | None, seed: int) -> pd.DataFrame:
    """Builds a table of one row per acquisition trace: `trace`, `auroc`, `low`, `high`.

    The AUROC (with several classes the one-against-rest mean) has a 95 % interval over patients,
    conditional on the models that gave the scores.
    """
    rows = []
    if shortcuts is not None:
        for name, scores in shortcuts.probabilities.items():
            if scores is not None:
                score = mean_score(
                    shortcuts.labels, [scores], shortcuts.groups, "auroc", seed, RESAMPLES
                )
                rows.append((name, score.value, score.low, score.high))
    return pd.DataFrame(rows, columns=["trace", "auroc", "low", "high"])


def findings(facts: DataFacts, shortcuts: pd.DataFrame) -> list[str]:
    """Returns a line for each problem to look at before training.

    `shortcuts` as `shortcut_table` gives it.
    """
    copies = facts.copies
    of_two = copies[two_patients(copies)]
    lines = [
        identical_under_two_patients(facts.images.frame),
        _copies_sentence(of_two[of_two["kind"] != IDENTICAL], "patient", "under two patients"),
    ]
    lines += [_copies_sentence(copies, column, where) for column, where in _PLACES]
    lines += [_shared(facts.patients), _blank_sentence(facts.blank), _shortcut(shortcuts)]
    return [line for line in lines if line]


def nothing_found(facts: DataFacts, shortcuts: pd.DataFrame) -> str:
    """Formats the line for a data set without findings."""
    line = f"{NOTHING}, no blank image"
    if len(facts.patients):
        line += (
            ", no known patient in two splits" if facts.unknown else ", no patient in two splits"
        )
    if not shortcuts.empty:
        line += ", no clear shortcut"
    if facts.unknown:
        line += ". Patients are unknown" + (" of some images" if len(facts.patients) else "")
        line += ": images of one may lie in two splits, which cannot be checked"
    if shortcuts.empty:
        line += ". Acquisition traces could not be checked for a shortcut"
    return f"{line}."


def two_patients(copies: pd.DataFrame) -> pd.Series:
    """Flags pairs of two known patients, bool."""
    first, second = copies["first_patient"], copies["second_patient"]
    return (first != second) & (first != "") & (second != "")


def crossing(copies: pd.DataFrame, column: str) -> pd.DataFrame:
    """Returns one pair of each group of copies that differ in `column`."""
    pairs = copies[copies[f"first_{column}"] != copies[f"second_{column}"]]
    return pairs.drop_duplicates("group")


_PLACES = (
    ("split", "in two splits: scores are flattered by what was seen in training"),
    ("label", "under two labels: look which label is right"),
)


_KINDS = {
    IDENTICAL: "identical",
    NEAR: "nearly identical",
    TURNED: "turned",
    MIRRORED: "mirrored",
}


def listed(words: Sequence[str], last: str) -> str:
    """Joins words by commas, the last one by another word.

    >>> listed(["identical", "turned", "mirrored"], "or")
    'identical, turned or mirrored'
    """
    *others, end = words
    return f"{', '.join(others)} {last} {end}" if others else end


def _copies_sentence(copies: pd.DataFrame, column: str, where: str) -> str:
    pairs = crossing(copies, column)
    if pairs.empty:
        return ""
    named = (f"{each.first_path} and {each.second_path}" for each in pairs.itertuples())
    count = many(len(pairs), "group", "groups")
    kinds = [word for kind, word in _KINDS.items() if (pairs["kind"] == kind).any()]
    return f"{count} of {listed(kinds, 'or')} images {where} ({_some(list(named))})"


def _shared(patients: pd.DataFrame) -> str:
    names = patients.loc[patients["splits"].str.contains("|", regex=False), "patient"].tolist()
    if not names:
        return ""
    return f"{many(len(names), 'patient is', 'patients are')} in two splits ({_some(names)})"


def _blank_sentence(blank: pd.DataFrame) -> str:
    paths = blank["path"].tolist()
    if not paths:
        return ""
    return f"{many(len(paths), 'image is', 'images are')} blank ({_some(paths)})"


def _shortcut(table: pd.DataFrame) -> str:
    clear = table[table["low"] > CLEAR].sort_values("auroc", ascending=False)
    if clear.empty:
        return ""
    told = [
        f"{each.trace} {each.auroc:.2f} ({each.low:.2f} to {each.high:.2f})"
        for each in clear.itertuples()
        if each.trace != ALL
    ]
    best = clear.iloc[0]
    single = f": {', '.join(told)}" if told else ""
    return (
        f"the label can be told without the picture, with an AUROC of {best['auroc']:.2f} "
        f"({best['low']:.2f} to {best['high']:.2f}) from how the images were made{single}; a "
        "network could learn the scanner instead of the disease"
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def many(count: int, one: str, more: str) -> str:
    """Returns a count with its noun."""
    return f"{count:,} {one if count == 1 else more}"


def middle(values: pd.Series) -> str:
    """Returns the range and the median of counts, as words."""
    if values.nunique() == 1:
        return f"{values.iloc[0]} each"
    return f"{values.min()} to {values.max()}, median {np.median(values):g}"


IN_A_STRIP = 8  # images of a class
STRIPS = 50  # classes that are shown
SHOWN_PAIRS = 8
ROWS = 20  # of a table in the page; the CSV files have all


@dataclass(frozen=True)
class DataReport:
    """Results of the checks of a data set, before anything is shown.

    Attributes:
        facts: counts, copies, sizes, blank images.
        shortcuts: table of `shortcut_table`.
        findings: lines on what to look at before training; none where nothing stands out.
        seed: seed of the choice of images on the page.
    """

    facts: DataFacts
    shortcuts: pd.DataFrame
    findings: tuple[str, ...]
    seed: int

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Tables by name, those with rows."""
        facts = self.facts
        tables = {
            "classes": facts.counts,
            "sizes": facts.sizes,
            "together": facts.together,
            "near_duplicates": facts.copies.drop(columns=["first", "second"]),
            "blank": facts.blank,
            "shortcuts": self.shortcuts,
        }
        return {name: table for name, table in tables.items() if len(table)}


def data_report(facts: DataFacts, seed: int) -> DataReport:
    """Computes the report; `seed` is that of the bootstrap and of the images on the page."""
    shortcuts = shortcut_table(facts.shortcuts, seed)
    return DataReport(facts, shortcuts, tuple(findings(facts, shortcuts)), seed)


def report_page(report: DataReport) -> str:
    """Renders a report as one HTML page without other files."""
    facts = report.facts
    count = many(len(facts.images.frame), "image", "images")
    cases = f", of cases with {', '.join(facts.modalities)}" if facts.modalities else ""
    return render(
        "data.html.jinja",
        title=f"Data: {facts.name}",
        name=facts.name,
        extent=f"{count} of {len(facts.classes)} {facts.kind}{cases}.",
        findings=[f"{line[:1].upper()}{line[1:]}." for line in report.findings]
        or [nothing_found(facts, report.shortcuts)],
        counts=_counts(facts),
        notes=[*_patients(facts), *facts.notes],
        together=_together(facts) if len(facts.together) else None,
        copies=_copies(facts),
        shortcuts=_shortcuts(facts, report.shortcuts),
        sizes=_sizes(facts),
        blank=_blank(facts),
        strips=_strips(facts, np.random.default_rng(report.seed)),
    )


@dataclass(frozen=True)
class Section:
    """Section of the page: a text, a picture and a table, each of them optional."""

    text: str = ""
    picture: Picture | None = None
    table: Table | None = None


def _counts(facts: DataFacts) -> Table:
    counts = facts.counts.set_index(["class", "split"])
    splits = list(dict.fromkeys(facts.counts["split"]))
    told = _images_and_patients if len(facts.patients) else _only_images
    rows = [
        Row(name, [told(counts.loc[(name, split)]) for split in splits]) for name in facts.classes
    ]
    whole = facts.images.frame["split"].value_counts().reindex(splits, fill_value=0)
    caption = "Images of each class and split"
    if facts.kind == "findings":
        caption = "Images with each finding, by split"
    caption += (
        ", and the patients that they are of" if len(facts.patients) else "; patients unknown"
    )
    rows.append(Row("all", [many(whole[split], "image", "images") for split in splits]))
    return Table(caption, ["class" if facts.kind == "classes" else "finding", *splits], rows)


def _together(facts: DataFacts) -> Table:
    rows = [Row(name, values) for name, *values in facts.together.to_numpy().tolist()]
    caption = "How many images have a finding, have it alone, and have it with each other one"
    return Table(caption, facts.together.columns.tolist(), rows)


def _images_and_patients(row: pd.Series) -> str:
    return f"{row['images']:,} of {many(row['patients'], 'patient', 'patients')}"


def _only_images(row: pd.Series) -> str:
    return many(row["images"], "image", "images")


def _patients(facts: DataFacts) -> Iterator[str]:
    table = facts.patients
    if facts.unknown:
        unknown = many(facts.unknown, "image is", "images are")
        yield (
            f"{unknown} of an unknown patient, each counted as a separate patient: images of one "
            "patient may be in two splits"
        )
    if len(table):
        yield f"{many(len(table), 'known patient', 'known patients')}, images: " + middle(
            table["images"]
        )
        if facts.kind == "classes":
            several = int(table["labels"].str.contains("|", regex=False).sum())
            yield f"{many(several, 'patient has', 'patients have')} images of more than one class"
        shared = int(table["splits"].str.contains("|", regex=False).sum())
        yield f"{many(shared, 'patient is', 'patients are')} in more than one split"


def _copies(facts: DataFacts) -> Section:
    pairs = facts.copies
    if pairs.empty:
        return Section(f"No image is a copy of another. {_HOW_COPIES}")
    groups, exact = pairs["group"].nunique(), int((pairs["kind"] == IDENTICAL).sum())
    of_several = pairs.loc[two_patients(pairs), "group"].nunique()
    text = (
        f"{many(len(pairs) + groups, 'image stands', 'images stand')} in "
        f"{many(groups, 'group', 'groups')} of copies; {len(crossing(pairs, 'split'))} of the "
        f"groups lie across splits, {len(crossing(pairs, 'label'))} under several labels, "
        f"{of_several} {'is' if of_several == 1 else 'are'} of several known patients. Of the "
        f"{many(len(pairs), 'pair', 'pairs')} that tie them together {exact} "
        f"{'is' if exact == 1 else 'are'} identical in every pixel. {_HOW_COPIES}"
    )
    shown = _most_telling(pairs)
    first = shown.head(SHOWN_PAIRS)
    images = facts.images.pictures(first[["first", "second"]].to_numpy().ravel())
    captions = [
        (f"{place}a {each.first_label}, {each.first_split}",
         f"{place}b {each.second_label}, {each.second_split}")
        for place, each in enumerate(first.itertuples(), start=1)
    ]  # fmt: skip
    told = f"{len(first)} of {len(pairs)} pairs, those of several patients, labels or splits first"
    figure = data_quality.copies_sheet(images.reshape(-1, 2, *images.shape[1:]), captions, told)
    rows = [
        Row(
            each.first_path,
            [each.second_path, each.kind, f"{each.alike:.2f}"]
            + [_both(each, column) for column in ("label", "split", "patient")],
        )
        for each in shown.head(ROWS).itertuples()
    ]
    head = ["image", "copy", "kind", "alike", "label", "split", "patient"]
    caption = _first_of(len(rows), len(pairs), "pairs", "near_duplicates.csv")
    return Section(text, Picture.of(figure, told), Table(caption, head, rows))


_HOW_COPIES = (
    "Alike is 1 for equal images and 0 for what any two images of this set have in common, such as "
    "the frame of a camera. Copies that are turned by 90, 180 or 270 degrees, mirrored or both are "
    "found; images that were turned by other angles or cut by more than a few per cent are not. "
    "Nothing is left out because of them: give the images of a group one patient, and they stay in "
    "one split."
)


def _most_telling(pairs: pd.DataFrame) -> pd.DataFrame:
    label, split = (
        pairs[f"first_{each}"] != pairs[f"second_{each}"] for each in ("label", "split")
    )
    identical = two_patients(pairs) & (pairs["kind"] == IDENTICAL)
    rank = 4 * identical.astype(int) + 2 * label.astype(int) + split.astype(int)
    return pairs.assign(rank=rank).sort_values(["rank", "alike"], ascending=False, kind="stable")


def _both(pair: object, column: str) -> str:
    first, second = (getattr(pair, f"{side}_{column}") for side in ("first", "second"))
    return first if first == second else f"{first or 'unknown'}, {second or 'unknown'}"


def _shortcuts(facts: DataFacts, table: pd.DataFrame) -> Section:
    if facts.shortcuts is None:
        return Section("Not checked: too few classes or patients.")
    same = [name for name, scores in facts.shortcuts.probabilities.items() if scores is None]
    if table.empty:
        return Section(f"The same in all images: {', '.join(same)}.")
    text = (
        "Can the label be told from how an image was made, without looking at what it shows? 0.5 "
        f"is chance; an interval above {CLEAR} says that there is a shortcut: a network could "
        "learn the scanner instead of the disease, and fail where another scanner is used. File "
        "size and border also follow what is in the picture, so look at the images before "
        "believing it. A model is worth something where its own AUROC is well above this one."
    )
    picture = Picture.of(
        data_quality.shortcut_scores(table, CLEAR),
        "AUROC of a random forest that sees only what is named, with its 95 % interval",
    )
    rows = [
        Row(each.trace, [f"{each.auroc:.3f}", f"{each.low:.3f} to {each.high:.3f}"])
        for each in table.itertuples()
    ]
    caption = (
        f"On {many(len(facts.shortcuts.labels), 'image', 'images')}; intervals over {facts.unit}"
    )
    if same:
        caption += f"; the same in all images: {', '.join(same)}"
    return Section(text, picture, Table(caption, ["what is seen", "AUROC", "95 % interval"], rows))


def _sizes(facts: DataFacts) -> Section:
    sizes, picture = facts.sizes, None
    if len(sizes) > 1:
        figure = data_quality.image_sizes(sizes, facts.classes)
        picture = Picture.of(figure, "Width against height of the files, by class")
    rows = [
        Row(f"{width} x {height} {mode}", counts)
        for width, height, mode, *counts in sizes.head(ROWS).to_numpy(object).tolist()
    ]
    caption = _first_of(len(rows), len(sizes), "sizes and modes", "sizes.csv")
    table = Table(caption, ["size and mode", "images", *facts.classes], rows)
    return Section(picture=picture, table=table)


def _blank(facts: DataFacts) -> Section:
    if facts.blank.empty:
        return Section("None.")
    rows = [
        Row(each.path, [each.label, each.split, f"{each.deviation:.4f}"])
        for each in facts.blank.head(ROWS).itertuples()
    ]
    caption = _first_of(len(rows), len(facts.blank), "blank images", "blank.csv")
    head = ["image", "label", "split", "deviation (white is 1)"]
    return Section(table=Table(caption, head, rows))


@dataclass(frozen=True)
class Strips:
    """Images of each class, after a text."""

    text: str
    pictures: tuple[Picture, ...]


def _strips(facts: DataFacts, random: np.random.Generator) -> Strips:
    text = ""
    if len(facts.classes) > STRIPS:
        text = f"The first {STRIPS} of {len(facts.classes)} classes."
    train = (facts.images.frame["split"] == "train").to_numpy()
    training = "training " if train.any() else ""
    shown = (
        membership_matrix(facts.images.labels, len(facts.classes))
        & (train | (not train.any()))[:, None]
    )
    pictures = []
    for place, name in enumerate(facts.classes[:STRIPS]):
        there = np.flatnonzero(shown[:, place])
        chosen = random.permutation(there)[:IN_A_STRIP]
        if len(chosen):
            figure = data_quality.strip_of_images(facts.images.pictures(chosen), IN_A_STRIP)
            caption = f"{name}: {len(chosen)} of {len(there)} {training}images"
            pictures.append(Picture.of(figure, caption))
    return Strips(text, tuple(pictures))


def _first_of(shown: int, total: int, what: str, file: str) -> str:
    if shown == total:
        return f"All {what} ({file} has them as a table)" if total > 1 else f"In {file} as a table"
    return f"The first {shown} of {total:,} {what}; all are in {file}"


REFUSED_ROWS = 1000  # most rows of the table in the page; the CSV file has all


def refusal_report(error: RefusedDataError) -> str:
    """Renders the page as HTML."""
    table = error.table.head(REFUSED_ROWS)
    first, *others = table.columns
    rows = [Row(str(name), values) for name, *values in table.to_numpy().tolist()]
    shown = "All" if len(table) == len(error.table) else f"The first {len(table)} of"
    caption = f"{shown} {len(error.table):,} affected images ({error.listing}.csv)"
    return render(
        "refusal.html.jinja",
        title=f"Data: {error.data}",
        name=error.data,
        reason=str(error),
        affected=Table(caption, [first, *others], rows),
    )
