"""The explanation gallery of a split, and whether its maps depend on what the model has learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from medtl.data.dataset import Dataset
from medtl.errors import MedtlError
from medtl.evaluation.compared_maps import Falls, coarse, faithfulness, falls, method_table
from medtl.evaluation.intervals import Interval
from medtl.evaluation.mapping import ClassMapping
from medtl.evaluation.methods import SPOKEN
from medtl.evaluation.randomised import mean_similarity, rank_correlations, verdict
from medtl.evaluation.shown import shown_classes, surest
from medtl.evaluation.truth import asked
from medtl.jobs.drawing import Draw, Drawing, drawing, methods_for
from medtl.tracking.bundle import Bundle
from medtl.tracking.galleries import Drawn, Gallery, log_galleries, log_methods
from medtl.training.inputs import network_input, unit_images

EACH_KIND = 3  # images of a kind that a gallery shows
MOST_CLASSES = 4  # that get a gallery
BATCH = 16


@dataclass(frozen=True)
class Said:
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
    bundle: Bundle,
    dataset: Dataset,
    split: str,
    said: Said,
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


def _shown(dataset: Dataset, said: Said, mapping: ClassMapping) -> pd.DataFrame:
    """A row an image of a gallery.

    `shown_class` (a label, int), `kind`, `index` (in the data), `model_class` (int) that its map
    is of, and the `probability` of the label. Of several classes of the model that mean a label,
    the map is of the likeliest.
    """
    labels, rows = dataset.labels[said.indices], []
    for label in shown_classes(labels, len(dataset.classes), MOST_CLASSES):
        cases, there = asked(labels, label)
        of_label = said.probabilities[:, label]
        called = asked(said.decisions, label)[1][cases]
        kinds = surest(there, called, of_label[cases], EACH_KIND)
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
    bundle: Bundle, how: Drawing, method: str, dataset: Dataset, shown: pd.DataFrame, seed: int
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


def _heats(draw: Draw, bundle: Bundle, dataset: Dataset, shown: pd.DataFrame) -> np.ndarray:
    """Returns the heat map of each row, float32 [M, S, S], of cases [M, S, images x S]."""
    parts = []
    for start in range(0, len(shown), BATCH):
        parts.append(draw(*_asked(bundle, dataset, shown.iloc[start : start + BATCH])))
    return np.concatenate(parts)


def _falls(
    bundle: Bundle,
    how: Drawing,
    dataset: Dataset,
    shown: pd.DataFrame,
    heats: np.ndarray,
    seed: int,
) -> Falls:
    """Computes the drop in the scores with the hottest places of these maps covered."""
    parts = []
    for start in range(0, len(shown), BATCH):
        part = slice(start, start + BATCH)
        asked_about = _asked(bundle, dataset, shown.iloc[part])
        parts.append(falls(how.scores, *asked_about, heats[part], seed + start))
    return Falls(
        np.concatenate([each.hottest for each in parts]),
        np.concatenate([each.elsewhere for each in parts]),
    )


def _asked(bundle: Bundle, dataset: Dataset, rows: pd.DataFrame) -> tuple[Tensor, Tensor]:
    """The images of rows as the network takes them, and the class that the map of each is of."""
    device = next(bundle.network.parameters()).device
    images = unit_images(dataset.images(rows["index"].to_numpy()), device)
    classes = torch.from_numpy(rows["model_class"].to_numpy(copy=True))
    return network_input(images, bundle.preprocessing), classes
