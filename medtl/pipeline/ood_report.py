"""Detection of out-of-distribution images: transformed copies and other data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from medtl.data.dataset import Dataset
from medtl.data.image_files import images_below
from medtl.data.loading import load
from medtl.data.manifest import EMBEDDED, data_name
from medtl.data.sources.natural_images import natural_images
from medtl.errors import MedtlError, ParameterError
from medtl.evaluation.confidence_intervals import rate
from medtl.evaluation.jackknife import Interval
from medtl.evaluation.ood_detection import (
    DomainEvaluation,
    cropped,
    detection_auroc,
    inverted,
    trimmed,
    turned,
)
from medtl.inference.predictor import Predictor
from medtl.settings.evaluation import EvaluateSettings
from medtl.training.loaders import PASS_BATCH

MOST_IMAGES = 512  # of each set; larger sets are sampled
COPIES = {"inverted": inverted, "turned": turned, "cropped": cropped, "trimmed": trimmed}


def check_sources(sources: tuple[str, ...]) -> None:
    """Checks that each source is an embedded data set, a folder with images or a file.

    Raises:
        ParameterError: one is not.
    """
    for source in sources:
        place = Path(source).expanduser()
        holds_images = place.is_dir() and any(True for _ in images_below(place))
        if source not in EMBEDDED and not holds_images and not place.is_file():
            raise ParameterError(
                "against", source, f"a folder with images, a CSV file, or {', '.join(EMBEDDED)}"
            )


def evaluate_domain(
    bundle: Predictor, dataset: Dataset, indices: np.ndarray, settings: EvaluateSettings
) -> DomainEvaluation | None:
    """Measures the detection of out-of-distribution images; None without a domain reference.

    The images are the samples `indices`, transformed copies of them, and those of each source of
    the parameter `against`.
    """
    if bundle.domain is None:
        return None
    random = np.random.default_rng(settings.seed)
    if len(indices) > MOST_IMAGES:
        indices = np.sort(random.choice(indices, MOST_IMAGES, replace=False))
    groups = dataset.groups[indices]
    images = dataset.images(indices)
    distances = {dataset.name: _distances(bundle, images)}
    codes = {dataset.name: groups}
    for name, copied in COPIES.items():
        distances[f"{dataset.name}, {name}"] = _distances(bundle, copied(images))
        codes[f"{dataset.name}, {name}"] = groups
    for name, others in _others(bundle, dataset, settings):
        while name in distances:
            name = f"{name} (other)"
        distances[name] = _distances(bundle, others)
        codes[name] = groups.max() + 1 + np.arange(len(others))
    table = _table(distances, codes, settings.seed)
    return DomainEvaluation(distances, table, tuple(COPIES), bundle.domain.expected)


def _others(
    bundle: Predictor, dataset: Dataset, settings: EvaluateSettings
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the name and some images of each source, in the size of the model."""
    rendering = bundle.preprocessing.rendering
    for source in settings.sources:
        name = data_name(source)
        if Path(source).expanduser().is_dir() and not bundle.modalities:
            yield (
                name,
                natural_images(
                    source, MOST_IMAGES, rendering, 3, settings.seed, settings.unreadable
                ),
            )
            continue
        reading = dataclasses.replace(settings.reading, duplicates="allow", positive="")
        other = load(source, rendering, settings.seed, reading)
        if other.modalities != bundle.modalities:
            raise MedtlError(
                f"{source} cannot be set against {dataset.name}: the model takes "
                f"{', '.join(bundle.modalities) or 'single images'}"
            )
        random = np.random.default_rng(settings.seed)
        size = min(MOST_IMAGES, len(other.labels))
        yield name, other.images(np.sort(random.choice(len(other.labels), size, replace=False)))


def _distances(bundle: Predictor, images: np.ndarray) -> np.ndarray:
    """Computes the distances [N] of stored pixels [N, C, S, S] (of cases [N, M, C, S, S])."""
    batches = (images[start : start + PASS_BATCH] for start in range(0, len(images), PASS_BATCH))
    parts = [bundle.distances(batch) for batch in batches]
    return np.concatenate([part for part in parts if part is not None])


def _table(
    distances: dict[str, np.ndarray], codes: dict[str, np.ndarray], seed: int
) -> pd.DataFrame:
    """Returns a row a set: `images`, `auroc` against the first, and `flagged`, each with bounds."""
    familiar, *_ = distances.values()
    known, *_ = codes.values()
    rows: list[dict[str, object]] = []
    for name, each in distances.items():
        auroc = Interval(np.nan, np.nan, np.nan)
        if rows:
            auroc = detection_auroc(familiar, each, np.concatenate([known, codes[name]]), seed)
        flagged = rate(~(each <= 1), codes[name])
        row: dict[str, object] = {"against": name, "images": len(each)}
        for column, found in (("auroc", auroc), ("flagged", flagged)):
            row |= {column: found.value, f"{column}_low": found.low, f"{column}_high": found.high}
        rows.append(row)
    return pd.DataFrame(rows)
