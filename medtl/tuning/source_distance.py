"""Distance of the target data to the data that each backbone was pretrained on, on features."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.data.dataset import Dataset
from medtl.data.loading import load
from medtl.errors import MedtlError
from medtl.imaging.rendering import Rendering
from medtl.networks.cutoffs import resolve
from medtl.pipeline.setup import Origin
from medtl.settings.data import Reading
from medtl.tracking.lineage import training_settings
from medtl.training.learner import TransferLearner
from medtl.tuning.cutoff_dictionary import Description, distance
from medtl.tuning.linear_probe import features_at

IMAGES = 200  # of each data set, drawn at random

COLUMNS = ("architecture", "seen_by", "source", "data", "distance")


@dataclass(frozen=True)
class Beginning:
    """A network before any training here.

    Attributes:
        name: name in the table.
        origin: architecture and weights.
        learner: returns its learner on the target data.
    """

    name: str
    origin: Origin
    learner: Callable[[], TransferLearner]


def source_distances(beginnings: Sequence[Beginning], seed: int) -> pd.DataFrame:
    """Computes the distance of each source from the target, on the features of each backbone.

    Sources are the training data of this project's models that networks begin with. A backbone is
    applied to the sources of its own architecture, at its own image size; the features are those
    pooled before its head. Features of a pretrained backbone fit its own source better than other
    data. A backbone of random weights, if there is one, prefers none. `seed` draws the images.

    Returns:
        A row for each backbone and source: `architecture`, `seen_by` (name of the backbone),
        `source` (name of the source), `data` (name of the source's data) and `distance` (see
        `medtl.tuning.cutoff_dictionary.distance`). A missing source is reported on the console
        and left out.
    """
    rows = []
    for architecture in dict.fromkeys(each.origin.architecture for each in beginnings):
        own = [each for each in beginnings if each.origin.architecture == architecture]
        sources = {each.name: each.origin for each in own if each.origin.source is not None}
        for each in own if sources else ():
            learner = each.learner()
            target, seen = learner.dataset, _description(learner, seed)
            for name, source in sources.items():
                try:
                    dataset = _source_data(source, each.origin.rendering)
                except MedtlError as error:
                    print(f"note: no distance from {name}: {error}", file=sys.stderr)
                    continue
                if dataset.modalities != target.modalities:
                    print(
                        f"note: no distance from {name}: {dataset.name} has other images a "
                        f"case than {target.name}",
                        file=sys.stderr,
                    )
                    continue
                on_source = dataclasses.replace(learner, dataset=dataset, rows=None, shared=None)
                apart = distance(seen, _description(on_source, seed))
                rows.append((architecture, each.name, name, dataset.name, apart))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _source_data(source: Origin, rendering: Rendering) -> Dataset:
    """Loads the training data of a model in a rendering, with the window of that model."""
    assert source.source is not None
    made = training_settings(source.weights)
    rendering = dataclasses.replace(rendering, window=source.source.preprocessing.window)
    return load(str(made["data"]), rendering, int(str(made["seed"])), Reading.of(made))


def _description(learner: TransferLearner, seed: int) -> Description:
    backbone = learner.backbone
    head = resolve(backbone.network, backbone.architecture, "head")
    train = learner.dataset.splits["train"]
    some = np.random.default_rng(seed).permutation(train)[:IMAGES]
    (features,) = features_at(learner, [head], np.sort(some))
    return Description.of(features)
