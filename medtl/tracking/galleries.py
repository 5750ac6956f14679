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
from medtl.evaluation.pictures.style import short
from medtl.evaluation.places import side_by_side
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
        rows: a row an image: `kind`, `index` in the data, `probability` of the class, and
            `similarity_STAGE` of its map to those with randomised weights.
        heats: the map of each row, float32 [M, S, S] (of cases [M, S, images x S]).
    """

    name: str
    rows: pd.DataFrame
    heats: np.ndarray


def log_galleries(
    dataset: Dataset,
    split: str,
    galleries: Sequence[Gallery],
    similarities: Mapping[str, Interval],
    words: str,
) -> None:
    """A picture a class, a table of all images in them, and metrics, table and words of the check.

    `similarities` are those of the maps to maps with randomised weights, by what was randomised.
    """
    place = f"evaluation/{split}"
    for gallery in galleries:
        log_picture(
            pictures.explanation_gallery(
                {kind: np.flatnonzero(gallery.rows["kind"] == kind) for kind in KINDS},
                side_by_side(dataset.images(gallery.rows["index"].to_numpy())),
                gallery.heats,
                _captions(dataset, gallery),
                f"Where the network sees {gallery.name}",
                words,
            ),
            f"{place}/{_file_name(gallery, galleries)}.png",
        )
    log_table(_table(dataset, galleries), f"{place}/explanation.csv")
    rows = [
        {"randomised": stage, "similarity": each.value, "low": each.low, "high": each.high}
        for stage, each in similarities.items()
    ]
    log_table(pd.DataFrame(rows), f"{place}/explanation_check.csv")
    mlflow.log_text(words + "\n", f"{place}/explanation.txt")
    for stage, interval in similarities.items():
        each = {"": interval.value, "_low": interval.low, "_high": interval.high}
        known = {end: value for end, value in each.items() if np.isfinite(value)}
        mlflow.log_metrics({f"{METRIC}_{stage}{end}": value for end, value in known.items()})


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


def _table(dataset: Dataset, galleries: Sequence[Gallery]) -> pd.DataFrame:
    tables = []
    for gallery in galleries:
        named = dataset.frame.iloc[gallery.rows["index"]][[dataset.naming, "label"]]
        known = gallery.rows.filter(regex="^(kind|probability|similarity_.*)$")
        parts = (each.reset_index(drop=True) for each in (named, known))
        tables.append(pd.concat(parts, axis=1).assign(shown_class=gallery.name))
    return pd.concat(tables)
