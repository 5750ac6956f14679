"""Distance of the target data to each backbone's source data, on features."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable

import numpy as np
import pandas as pd

from medtl.comparison.design import Cell
from medtl.comparison.runner import SharedResources
from medtl.data.dataset import Dataset, load
from medtl.errors import MedtlError
from medtl.imaging.rendering import Rendering
from medtl.networks.cutoffs import resolve
from medtl.networks.pretrained import Backbone
from medtl.pipeline.setup import Origin
from medtl.settings.data import Reading
from medtl.tracking.lineage import training_settings
from medtl.training.learner import TransferLearner
from medtl.tuning.cutoff_dictionary import Description, distance
from medtl.tuning.linear_probe import features_at

IMAGES = 200  # of each data set, drawn at random

COLUMNS = ("architecture", "seen_by", "source", "data", "distance")


def source_distances(resources: SharedResources, cells: Iterable[Cell]) -> pd.DataFrame:
    """Computes the distance of each source from the target, on the features of each backbone.

    Sources are the training data of this project's models that cells start from. A backbone is
    applied to the sources of its own architecture, at its own image size; the features are those
    pooled before its head. Features of a pretrained backbone fit its own source better than other
    data. A backbone of random weights, if the study has one, prefers none.

    Returns:
        A row for each backbone and source: `architecture`, `seen_by` (series of the backbone),
        `source` (series of the source), `data` (name of the source) and `distance` (see
        `medtl.tuning.cutoff_dictionary.distance`). A missing source is reported on the console
        and left out.
    """
    origins = _origins(resources, cells)
    rows = []
    for architecture in dict.fromkeys(cell.architecture for cell in origins):
        own = {cell: each for cell, each in origins.items() if cell.architecture == architecture}
        sources = {cell.series: each for cell, each in own.items() if each.source is not None}
        for cell, origin in own.items() if sources else ():
            target = resources.data(origin.rendering)
            backbone = origin.backbone(target, cell.seed)
            seen = _description(resources, cell, backbone, target)
            for series, source in sources.items():
                try:
                    dataset = _source_data(source, origin.rendering)
                except MedtlError as error:
                    print(f"note: no distance from {series}: {error}", file=sys.stderr)
                    continue
                if dataset.modalities != target.modalities:
                    print(
                        f"note: no distance from {series}: {dataset.name} has other images a "
                        f"case than {target.name}",
                        file=sys.stderr,
                    )
                    continue
                apart = distance(seen, _description(resources, cell, backbone, dataset))
                rows.append((architecture, cell.series, series, dataset.name, apart))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _origins(resources: SharedResources, cells: Iterable[Cell]) -> dict[Cell, Origin]:
    """Returns one cell and the origin of each backbone that is available."""
    first: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        first.setdefault((cell.architecture, cell.weights), cell)
    origins = {}
    for cell in first.values():
        try:
            origins[cell] = resources.origin(cell)
        except MedtlError:
            continue  # its cells report the reason
    return origins


def _source_data(source: Origin, rendering: Rendering) -> Dataset:
    """Loads the training data of a model in a rendering, with the window of that model."""
    assert source.source is not None
    made = training_settings(source.weights)
    rendering = dataclasses.replace(rendering, window=source.source.preprocessing.window)
    return load(str(made["data"]), rendering, int(str(made["seed"])), Reading.of(made))


def _description(
    resources: SharedResources, cell: Cell, backbone: Backbone, dataset: Dataset
) -> Description:
    transfer = TransferLearner(backbone, dataset, resources.train_settings(cell))
    head = resolve(backbone.network, backbone.architecture, "head")
    train = dataset.splits["train"]
    some = np.random.default_rng(cell.seed).permutation(train)[:IMAGES]
    (features,) = features_at(transfer, [head], np.sort(some))
    return Description.of(features)
