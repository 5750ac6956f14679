"""Distances of a study's target data to the sources of its backbones."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import pandas as pd

from medtl.comparison.design import Cell
from medtl.comparison.runner import SharedResources
from medtl.errors import MedtlError
from medtl.pipeline.setup import Origin
from medtl.training.learner import TransferLearner
from medtl.tuning.source_distance import Beginning
from medtl.tuning.source_distance import source_distances as distances_of


def source_distances(resources: SharedResources, cells: Iterable[Cell]) -> pd.DataFrame:
    """Computes the distances of the sources that cells start from.

    Returns the table of `medtl.tuning.source_distance.source_distances`, with the series of cells
    as names. A backbone that is not available is left out: its cells report the reason.
    """
    first: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        first.setdefault((cell.architecture, cell.weights), cell)
    beginnings = []
    for cell in first.values():
        try:
            origin = resources.origin(cell)
        except MedtlError:
            continue
        learner = partial(_learner, resources, cell, origin)
        beginnings.append(Beginning(cell.series, origin, learner))
    seed = next(iter(first.values())).seed if first else 0
    return distances_of(beginnings, seed)


def _learner(resources: SharedResources, cell: Cell, origin: Origin) -> TransferLearner:
    target = resources.data(origin.rendering)
    backbone = origin.backbone(target, cell.seed)
    return TransferLearner(backbone, target, resources.train_settings(cell))
