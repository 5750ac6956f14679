"""Distance of the target data to each backbone's source data, on features."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import numpy as np
import pandas as pd

from medtl.comparison.design import Cell
from medtl.comparison.runner import SharedResources
from medtl.data.dataset import Dataset, load
from medtl.errors import MedtlError
from medtl.networks.cutoffs import resolve
from medtl.networks.pretrained import Backbone
from medtl.pipeline.setup import Origin
from medtl.settings.training import Reading
from medtl.tracking.lineage import training_settings
from medtl.training.learner import TransferLearner
from medtl.tuning.cutoff_dictionary import Description, distance
from medtl.tuning.linear_probe import features_at

IMAGES = 200  # of each data set that are looked at

COLUMNS = ("architecture", "seen_by", "source", "data", "distance")


def source_distances(bench: SharedResources, cells: Iterable[Cell]) -> pd.DataFrame:
    """The distance of each source from the target, as each of the study's backbones sees it.

    Sources are the data on which models of this project were trained that cells start from; a
    backbone sees those of its own architecture, at its own image size, by the pooled features
    before its head. A network sees its own source with a trained eye, so that one alone says
    little; that of random weights is the neutral one, where the study has it.

    Returns:
        A row a backbone and source: `architecture`, `seen_by` and `source` as the study calls
        them, `data` (the source's own name) and `distance` (see `search.dictionary.distance`). A
        source that is gone is said on the console and left out.
    """
    origins = _origins(bench, cells)
    rows = []
    for architecture in dict.fromkeys(cell.architecture for cell in origins):
        own = {cell: each for cell, each in origins.items() if cell.architecture == architecture}
        sources = {cell.series: each for cell, each in own.items() if each.source is not None}
        for cell, origin in own.items() if sources else ():
            target = bench.data(origin.image_size)
            backbone = origin.backbone(target, cell.seed)
            seen = _description(bench, cell, backbone, target)
            for series, source in sources.items():
                try:
                    dataset = _source_data(source.weights, origin.image_size)
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
                apart = distance(seen, _description(bench, cell, backbone, dataset))
                rows.append((architecture, cell.series, series, dataset.name, apart))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _origins(bench: SharedResources, cells: Iterable[Cell]) -> dict[Cell, Origin]:
    """One cell for each backbone that can be had, with what the backbone is made of."""
    first: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        first.setdefault((cell.architecture, cell.weights), cell)
    origins = {}
    for cell in first.values():
        try:
            origins[cell] = bench.origin(cell)
        except MedtlError:
            continue  # its cells say why
    return origins


def _source_data(uri: str, image_size: int) -> Dataset:
    made = training_settings(uri)
    return load(str(made["data"]), image_size, int(made["seed"]), Reading.of(made))


def _description(
    bench: SharedResources, cell: Cell, backbone: Backbone, dataset: Dataset
) -> Description:
    transfer = TransferLearner(backbone, dataset, bench.train_settings(cell))
    head = resolve(backbone.network, backbone.architecture, "head")
    train = dataset.splits["train"]
    some = np.random.default_rng(cell.seed).permutation(train)[:IMAGES]
    (features,) = features_at(transfer, [head], np.sort(some))
    return Description.of(features)
