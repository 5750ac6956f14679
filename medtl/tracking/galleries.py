"""What a run shows of its heat maps: galleries, their table, and how they passed the check."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlflow
import numpy as np
import pandas as pd

from medtl.data.dataset import Dataset
from medtl.evaluation import pictures
from medtl.evaluation.intervals import Interval
from medtl.evaluation.methods import GRAD_CAM, SPOKEN
from medtl.evaluation.pictures.style import short
from medtl.evaluation.places import side_by_side
from medtl.evaluation.randomised import HARDLY_CHANGED
from medtl.evaluation.shown import (
    FALSE_NEGATIVES,
    FALSE_POSITIVES,
    TRUE_NEGATIVES,
    TRUE_POSITIVES,
)
from medtl.tracking.journal import log_picture, log_table

METRIC = "explanation_similarity"
CAPTION = 16  # letters of the findings of an image
KINDS = (TRUE_POSITIVES, FALSE_POSITIVES, FALSE_NEGATIVES, TRUE_NEGATIVES)


@dataclass(frozen=True)
class Gallery:
    """The images shown for one class against the rest.

    Attributes:
        name: of the class.
        rows: a row an image: `kind`, `index` in the data, and `probability` of the class. Its own
            index says where the image is in what is `Drawn`.
    """

    name: str
    rows: pd.DataFrame


@dataclass(frozen=True)
class Drawn:
    """The maps that one method draws of M images, those of all galleries.

    Attributes:
        method: one of `medtl.evaluation.methods`.
        heats: float32 [M, S, S] (of cases [M, S, images x S]).
        rows: a row an image: `similarity_STAGE` of its map to those with what was learned lost.
        check: the mean of these, by stage; the last stage is the loss of all that was learned.
        words: what the check says.
    """

    method: str
    heats: np.ndarray
    rows: pd.DataFrame
    check: Mapping[str, Interval]
    words: str


def log_galleries(
    dataset: Dataset,
    split: str,
    galleries: Sequence[Gallery],
    drawn: Sequence[Drawn],
    words: str,
) -> None:
    """A picture a class, a table of all images in them, and metrics, table and words of the check.

    A picture shows the maps of all methods side by side.
    """
    place = f"evaluation/{split}"
    for gallery in galleries:
        places = gallery.rows.index
        log_picture(
            pictures.explanation_gallery(
                {kind: np.flatnonzero(gallery.rows["kind"] == kind) for kind in KINDS},
                side_by_side(dataset.images(gallery.rows["index"].to_numpy())),
                {SPOKEN[each.method]: each.heats[places] for each in drawn},
                _captions(dataset, gallery),
                _title(gallery, drawn),
                _subtitle(drawn),
            ),
            f"{place}/{_file_name(gallery, galleries)}.png",
        )
    log_table(_table(dataset, galleries, drawn), f"{place}/explanation.csv")
    rows = [
        {
            "method": each.method,
            "randomised": stage,
            "similarity": found.value,
            "low": found.low,
            "high": found.high,
        }
        for each in drawn
        for stage, found in each.check.items()
    ]
    log_table(pd.DataFrame(rows), f"{place}/explanation_check.csv")
    mlflow.log_text(words + "\n", f"{place}/explanation.txt")
    for each in drawn:
        name = METRIC if each.method == GRAD_CAM else f"{METRIC}_{each.method}"
        for stage, interval in each.check.items():
            ends = {"": interval.value, "_low": interval.low, "_high": interval.high}
            known = {end: value for end, value in ends.items() if np.isfinite(value)}
            mlflow.log_metrics({f"{name}_{stage}{end}": value for end, value in known.items()})


def log_methods(table: pd.DataFrame, split: str) -> None:
    """How the methods compare; `table` as `medtl.evaluation.compared_maps` has it."""
    log_table(table, f"evaluation/{split}/explanation_methods.csv")


def _title(gallery: Gallery, drawn: Sequence[Drawn]) -> str:
    of_one = f", by {SPOKEN[drawn[0].method]}" if len(drawn) == 1 else ""
    return f"Where the network sees {gallery.name}{of_one}"


def _subtitle(drawn: Sequence[Drawn]) -> str:
    """What the check says: of one method in words, of several in a number each."""
    if len(drawn) == 1:
        return drawn[0].words
    numbers = []
    for each in drawn:
        similarity = each.check[list(each.check)[-1]].value
        doubt = ": do not trust it" if similarity >= HARDLY_CHANGED else ""
        numbers.append(f"{SPOKEN[each.method]} {similarity:.2f}{doubt}")
    return f"rank correlation with maps of random weights   {', '.join(numbers)}"


def _captions(dataset: Dataset, gallery: Gallery) -> list[str]:
    """The probability of the class, and what the image truly is; of many findings the first."""
    labels = dataset.frame["label"].iloc[gallery.rows["index"]].tolist()
    if dataset.multi_label:
        labels = short(labels, CAPTION)
    return [
        f"{probability:.2f}, is {label}"
        for probability, label in zip(gallery.rows["probability"], labels, strict=True)
    ]


def _file_name(gallery: Gallery, galleries: Sequence[Gallery]) -> str:
    if len(galleries) == 1:
        return "explanation"
    number = 1 + [each.name for each in galleries].index(gallery.name)
    return f"explanation_{number}_{re.sub(r'[^A-Za-z0-9]+', '_', gallery.name)}"


def _table(dataset: Dataset, galleries: Sequence[Gallery], drawn: Sequence[Drawn]) -> pd.DataFrame:
    tables = []
    for gallery in galleries:
        named = dataset.frame.iloc[gallery.rows["index"]][[dataset.naming, "label"]]
        known = gallery.rows[["kind", "probability"]]
        for each in drawn:
            similarities = each.rows.loc[gallery.rows.index]
            parts = (part.reset_index(drop=True) for part in (named, known, similarities))
            table = pd.concat(parts, axis=1)
            tables.append(table.assign(shown_class=gallery.name, method=each.method))
    return pd.concat(tables)
