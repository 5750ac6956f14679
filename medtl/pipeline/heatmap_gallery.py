"""Heat-map gallery of a split, its checks and its artifacts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlflow
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from medtl.data.dataset import Dataset
from medtl.errors import MedtlError
from medtl.evaluation.example_selection import (
    FALSE_NEGATIVES,
    FALSE_POSITIVES,
    TRUE_NEGATIVES,
    TRUE_POSITIVES,
    most_confident,
    shown_classes,
)
from medtl.evaluation.external_validation import ClassMapping
from medtl.evaluation.heatmap_checks import (
    HARDLY_CHANGED,
    DeletionScores,
    coarse,
    faithfulness,
    falls,
    mean_similarity,
    method_table,
    rank_correlations,
    verdict,
)
from medtl.evaluation.jackknife import Interval
from medtl.evaluation.metrics import labelled_cases
from medtl.inference.grad_cam import side_by_side
from medtl.inference.predictor import Predictor
from medtl.networks.preprocessing import network_input, unit_images
from medtl.pipeline.heatmap_methods import Draw, Drawing, drawing, methods_for
from medtl.reporting.plots import image_sheets
from medtl.reporting.plots.style import short
from medtl.settings.evaluation import GRAD_CAM, SPOKEN
from medtl.tracking.artifacts import log_picture, log_table

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
        method: one of `medtl.settings.evaluation`.
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
            image_sheets.explanation_gallery(
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
    """How the methods compare; `table` as `medtl.evaluation.heatmap_checks` has it."""
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


EACH_KIND = 3  # images of a kind that a gallery shows
MOST_CLASSES = 4  # that get a gallery
BATCH = 16


@dataclass(frozen=True)
class SplitPredictions:
    """Output of a model for N images of a data set.

    `indices` int64 [N]; `own` [N, J] are calibrated probabilities of the model's classes,
    `probabilities` [N, K] and `decisions` int64 [N] (of findings bool [N, K]) those of the data's
    labels.
    """

    indices: np.ndarray
    own: np.ndarray
    probabilities: np.ndarray
    decisions: np.ndarray


def explain(
    bundle: Predictor,
    dataset: Dataset,
    split: str,
    said: SplitPredictions,
    mapping: ClassMapping,
    seed: int,
    maps: Sequence[str] = (),
) -> str:
    """Logs galleries of a split and the check of their maps; what the check says, in words.

    `maps` names the methods that draw them, none for the one that is for this kind of model; of
    several each has a line, and a table says how far they agree. Of a model that has no heat
    maps, the reason. The model's own network stays as it is.

    Raises:
        ParameterError: as `methods_for`.
    """
    shown = _shown(dataset, said, mapping)
    drawn, fallen, words = [], {}, {}
    for method in methods_for(bundle, maps):
        try:
            how = drawing(bundle, method, seed)
        except MedtlError as error:
            words[method] = f"no heat maps: {error}"
            continue
        each = _drawn(bundle, how, method, dataset, shown, seed)
        drawn.append(each)
        words[method] = each.words
        if len(maps) > 1:
            fallen[method] = _falls(bundle, how, dataset, shown, each.heats, seed)
    if fallen:
        groups = dataset.groups[shown["index"].to_numpy()]
        heats = {each.method: each.heats for each in drawn}
        table = method_table(heats, fallen, groups)
        log_methods(table, split)
        for row in table.itertuples():
            more = Interval(row.fall_more, row.fall_more_low, row.fall_more_high)
            words[row.method] += f"; {faithfulness(more)}"
    lines = _lines(words)
    if drawn:
        by_class = shown.groupby("shown_class")
        galleries = [Gallery(dataset.classes[label], rows) for label, rows in by_class]
        log_galleries(dataset, split, galleries, drawn, lines)
    return lines


def _lines(words: dict[str, str]) -> str:
    """Formats the result of one method, or one line for each of several."""
    if len(words) == 1:
        return next(iter(words.values()))
    return "\n".join(f"{SPOKEN[method]}: {line}" for method, line in words.items())


def _shown(dataset: Dataset, said: SplitPredictions, mapping: ClassMapping) -> pd.DataFrame:
    """A row an image of a gallery.

    `shown_class` (a label, int), `kind`, `index` (in the data), `model_class` (int) that its map
    is of, and the `probability` of the label. Of several classes of the model that mean a label,
    the map is of the likeliest.
    """
    labels, rows = dataset.labels[said.indices], []
    for label in shown_classes(labels, len(dataset.classes), MOST_CLASSES):
        cases, there = labelled_cases(labels, label)
        of_label = said.probabilities[:, label]
        called = labelled_cases(said.decisions, label)[1][cases]
        kinds = most_confident(there, called, of_label[cases], EACH_KIND)
        columns = np.array(mapping.columns[label])
        for kind, found in kinds.items():
            places = cases[found]
            likeliest = columns[said.own[np.ix_(places, columns)].argmax(axis=1)]
            rows += [
                (label, kind, said.indices[place], model_class, of_label[place])
                for place, model_class in zip(places, likeliest, strict=True)
            ]
    columns = ["shown_class", "kind", "index", "model_class", "probability"]
    return pd.DataFrame(rows, columns=columns)


def _drawn(
    bundle: Predictor, how: Drawing, method: str, dataset: Dataset, shown: pd.DataFrame, seed: int
) -> Drawn:
    """The map of each row of `shown`, and how some compare with those that learned nothing."""
    heats = _heats(how.trained, bundle, dataset, shown)
    evenly = np.linspace(0, len(shown) - 1, how.most).round().astype(int)
    checked = shown.iloc[np.unique(evenly)]
    similarities: dict[str, list[np.ndarray]] = {}
    for names, draw in how.without:
        after = _heats(draw, bundle, dataset, checked)
        for name in names:
            found = rank_correlations(coarse(heats[checked.index]), coarse(after))
            similarities.setdefault(name, []).append(found)
    groups = dataset.groups[checked["index"].to_numpy()]
    rows = pd.DataFrame(index=shown.index)
    check = {}
    for stage, draws in similarities.items():
        each = np.mean(draws, axis=0)
        rows.loc[checked.index, f"similarity_{stage}"] = each
        check[stage] = mean_similarity(each, groups)
    of_all = check[list(check)[-1]]
    return Drawn(method, heats, rows, check, verdict(of_all, how.lost))


def _heats(draw: Draw, bundle: Predictor, dataset: Dataset, shown: pd.DataFrame) -> np.ndarray:
    """Returns the heat map of each row, float32 [M, S, S], of cases [M, S, images x S]."""
    parts = []
    for start in range(0, len(shown), BATCH):
        parts.append(draw(*_asked(bundle, dataset, shown.iloc[start : start + BATCH])))
    return np.concatenate(parts)


def _falls(
    bundle: Predictor,
    how: Drawing,
    dataset: Dataset,
    shown: pd.DataFrame,
    heats: np.ndarray,
    seed: int,
) -> DeletionScores:
    """Computes the drop in the scores with the hottest places of these maps covered."""
    parts = []
    for start in range(0, len(shown), BATCH):
        part = slice(start, start + BATCH)
        asked_about = _asked(bundle, dataset, shown.iloc[part])
        parts.append(falls(how.scores, *asked_about, heats[part], seed + start))
    return DeletionScores(
        np.concatenate([each.hottest for each in parts]),
        np.concatenate([each.elsewhere for each in parts]),
    )


def _asked(bundle: Predictor, dataset: Dataset, rows: pd.DataFrame) -> tuple[Tensor, Tensor]:
    """The images of rows as the network takes them, and the class that the map of each is of."""
    device = next(bundle.network.parameters()).device
    images = unit_images(dataset.images(rows["index"].to_numpy()), device)
    classes = torch.from_numpy(rows["model_class"].to_numpy(copy=True))
    return network_input(images, bundle.preprocessing), classes
