"""Heat maps of a split: chosen images, their maps, and the checks of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from medtl.data.dataset import Dataset
from medtl.errors import MedtlError
from medtl.evaluation.example_selection import KINDS, most_confident, shown_classes
from medtl.evaluation.external_validation import ClassMapping
from medtl.evaluation.heatmap_checks import (
    DeletionScores,
    coarse,
    deletion_scores,
    faithfulness,
    mean_similarity,
    method_table,
    rank_correlations,
    verdict,
)
from medtl.evaluation.heatmap_evaluation import Gallery, HeatmapEvaluation, MethodMaps
from medtl.evaluation.jackknife import Interval
from medtl.evaluation.scored_cases import labelled_cases
from medtl.evaluation.split_evaluation import SplitPredictions
from medtl.inference.grad_cam import side_by_side
from medtl.inference.predictor import Predictor
from medtl.networks.preprocessing import network_input, unit_images
from medtl.pipeline.heatmap_methods import Draw, Drawing, drawing, methods_for
from medtl.settings.evaluation import SPOKEN

EACH_KIND = 3  # images of a kind in a gallery
MOST_GALLERIES = 4
BATCH = 16
CAPTION = 16  # letters of the findings of an image


def explain_split(
    bundle: Predictor,
    dataset: Dataset,
    predictions: SplitPredictions,
    mapping: ClassMapping,
    seed: int,
    maps: Sequence[str] = (),
) -> HeatmapEvaluation:
    """Draws heat maps of some images of a split, and checks them.

    `maps` names the methods; none for the default of this kind of model. Several are compared, too.
    The network is unchanged.

    Raises:
        ParameterError: as `methods_for`.
    """
    shown = _shown(dataset, predictions, mapping)
    drawn, deleted, words = [], {}, {}
    for method in methods_for(bundle, maps):
        try:
            how = drawing(bundle, method, seed)
        except MedtlError as error:
            words[method] = f"no heat maps: {error}"
            continue
        each = _method_maps(bundle, how, method, dataset, shown)
        drawn.append(each)
        words[method] = each.words
        if len(maps) > 1:
            deleted[method] = _deletion_scores(bundle, how, dataset, shown, each.heats, seed)
    table = None
    if deleted:
        groups = dataset.groups[shown["index"].to_numpy()]
        table = method_table({each.method: each.heats for each in drawn}, deleted, groups)
        for row in table.to_dict("records"):
            more = Interval(row["fall_more"], row["fall_more_low"], row["fall_more_high"])
            words[row["method"]] += f"; {faithfulness(more)}"
    labels = sorted(shown["shown_class"].unique().tolist()) if drawn else []
    by_class = {label: shown[shown["shown_class"] == label] for label in labels}
    return HeatmapEvaluation(
        predictions.split,
        tuple(_gallery(dataset, label, rows, drawn) for label, rows in by_class.items()),
        tuple(drawn),
        _images(dataset, by_class, drawn),
        table,
        _lines(words),
    )


def _lines(words: dict[str, str]) -> str:
    """Formats the result of one method, or one line for each of several."""
    if len(words) == 1:
        return next(iter(words.values()))
    return "\n".join(f"{SPOKEN[method]}: {line}" for method, line in words.items())


def _shown(dataset: Dataset, predictions: SplitPredictions, mapping: ClassMapping) -> pd.DataFrame:
    """Chooses the images of the galleries, a row each.

    Columns: `shown_class` (a label, int), `kind`, `index` (in the data), `model_class` (int) that
    its map is of, and the `probability` of the label. If several classes of the model mean a label,
    the map is of the most probable one.
    """
    labels, rows = dataset.labels[predictions.indices], []
    for label in shown_classes(labels, len(dataset.classes), MOST_GALLERIES):
        cases, positive = labelled_cases(labels, label)
        probabilities = predictions.probabilities[:, label]
        called = labelled_cases(predictions.decisions, label)[1][cases]
        kinds = most_confident(positive, called, probabilities[cases], EACH_KIND)
        columns = np.array(mapping.columns[label])
        for kind, found in kinds.items():
            places = cases[found]
            likeliest = columns[predictions.of_model[np.ix_(places, columns)].argmax(axis=1)]
            rows += [
                (label, kind, predictions.indices[place], model_class, probabilities[place])
                for place, model_class in zip(places, likeliest, strict=True)
            ]
    names = ["shown_class", "kind", "index", "model_class", "probability"]
    return pd.DataFrame(rows, columns=names)


def _method_maps(
    bundle: Predictor, how: Drawing, method: str, dataset: Dataset, shown: pd.DataFrame
) -> MethodMaps:
    """Draws the map of each row of `shown`, and compares some with those of randomised weights."""
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
    return MethodMaps(method, heats, rows, check, verdict(of_all, how.lost))


def _heats(draw: Draw, bundle: Predictor, dataset: Dataset, shown: pd.DataFrame) -> np.ndarray:
    """Returns the heat map of each row, float32 [M, S, S], of cases [M, S, images x S]."""
    parts = []
    for start in range(0, len(shown), BATCH):
        parts.append(draw(*_inputs(bundle, dataset, shown.iloc[start : start + BATCH])))
    return np.concatenate(parts)


def _deletion_scores(
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
        inputs = _inputs(bundle, dataset, shown.iloc[part])
        parts.append(deletion_scores(how.scores, *inputs, heats[part], seed + start))
    return DeletionScores(
        np.concatenate([each.hottest for each in parts]),
        np.concatenate([each.elsewhere for each in parts]),
    )


def _inputs(bundle: Predictor, dataset: Dataset, rows: pd.DataFrame) -> tuple[Tensor, Tensor]:
    """Returns the network's input for the images of rows, and the class of each map."""
    device = next(bundle.network.parameters()).device
    images = unit_images(dataset.images(rows["index"].to_numpy()), device)
    classes = torch.from_numpy(rows["model_class"].to_numpy(copy=True))
    return network_input(images, bundle.preprocessing), classes


def _gallery(
    dataset: Dataset, label: int, rows: pd.DataFrame, drawn: Sequence[MethodMaps]
) -> Gallery:
    return Gallery(
        dataset.classes[label],
        {kind: np.flatnonzero(rows["kind"] == kind) for kind in KINDS},
        side_by_side(dataset.images(rows["index"].to_numpy())),
        {SPOKEN[each.method]: each.heats[rows.index] for each in drawn},
        _captions(dataset, label, rows),
    )


def _captions(dataset: Dataset, label: int, rows: pd.DataFrame) -> tuple[str, ...]:
    """Formats the probability of the class, the label and the name of the image, a line each.

    Of many findings the first letters.
    """
    files = dataset.frame[dataset.naming].iloc[rows["index"]]
    labels = dataset.frame["label"].iloc[rows["index"]].tolist()
    if dataset.multi_label:
        labels = [f"{each[: CAPTION - 1]}…" if len(each) > CAPTION else each for each in labels]
    return tuple(
        f"probability of {dataset.classes[label]}: {probability:.2f}\ntruth: {truth}\n{file}"
        for probability, truth, file in zip(rows["probability"], labels, files, strict=True)
    )


def _images(
    dataset: Dataset, by_class: Mapping[int, pd.DataFrame], drawn: Sequence[MethodMaps]
) -> pd.DataFrame:
    """Builds the table of the images of all galleries, for each method."""
    tables = []
    for label, rows in by_class.items():
        named = dataset.frame.iloc[rows["index"]][[dataset.naming, "label"]]
        known = rows[["kind", "probability"]]
        for each in drawn:
            similarities = each.similarities.loc[rows.index]
            parts = (part.reset_index(drop=True) for part in (named, known, similarities))
            name = dataset.classes[label]
            table = pd.concat(parts, axis=1).assign(shown_class=name, method=each.method)
            tables.append(table)
    return pd.concat(tables) if tables else pd.DataFrame()
