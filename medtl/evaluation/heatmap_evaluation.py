"""Heat maps of a split: galleries, and the check that maps depend on the trained weights.

The dataclasses hold results; `medtl.pipeline.heatmaps` computes and
`medtl.pipeline.evaluation_logging` logs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.evaluation.heatmap_checks import HARDLY_CHANGED
from medtl.evaluation.jackknife import Interval
from medtl.settings.evaluation import SPOKEN


@dataclass(frozen=True)
class MethodMaps:
    """Maps of one method, of M images.

    Attributes:
        method: one of `medtl.settings.evaluation.METHODS`.
        heats: float32 [M, S, S] (of cases [M, S, images x S]).
        similarities: a row an image: `similarity_STAGE` of its map to those of randomised weights.
        check: mean similarity by stage; in the last stage all that was trained is randomised.
        words: interpretation of the check.
    """

    method: str
    heats: np.ndarray
    similarities: pd.DataFrame
    check: Mapping[str, Interval]
    words: str

    @property
    def last(self) -> Interval:
        """Similarity to maps of fully randomised weights."""
        return self.check[list(self.check)[-1]]


@dataclass(frozen=True)
class Gallery:
    """Images of one class against the rest, with their maps.

    Attributes:
        name: class.
        kinds: places of the images of each kind (true positives, ...), empty for none.
        images: [M, C, H, W] (uint8 or uint16, grey or RGB).
        heats: maps of each method [M, H, W], 0 to 1, by its name in print.
        captions: M lines.
    """

    name: str
    kinds: Mapping[str, np.ndarray]
    images: np.ndarray
    heats: Mapping[str, np.ndarray]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class HeatmapEvaluation:
    """Heat maps of a model on one split.

    Attributes:
        split: name of the split.
        galleries: one a class; none for a model without heat maps.
        maps: one a method.
        images: a row an image of a gallery and method: name, label, kind, probability, ....
        methods: faithfulness and agreement of several methods; None for one.
        words: result of the checks, a line for each of several methods, or the reason for no maps.
    """

    split: str
    galleries: tuple[Gallery, ...]
    maps: tuple[MethodMaps, ...]
    images: pd.DataFrame
    methods: pd.DataFrame | None
    words: str

    def check(self) -> pd.DataFrame:
        """Returns the similarities of the checks, a row a method and stage of randomisation."""
        rows = [
            {
                "method": each.method,
                "randomised": stage,
                "similarity": found.value,
                "low": found.low,
                "high": found.high,
            }
            for each in self.maps
            for stage, found in each.check.items()
        ]
        return pd.DataFrame(rows)

    def title(self, gallery: Gallery) -> str:
        """Formats the title of a gallery."""
        of_one = f", by {SPOKEN[self.maps[0].method]}" if len(self.maps) == 1 else ""
        return f"Where the network sees {gallery.name}{of_one}"

    def subtitle(self) -> str:
        """Formats the result of the checks: of one method in words, of several in numbers."""
        if len(self.maps) == 1:
            return self.maps[0].words
        numbers = []
        for each in self.maps:
            doubt = ": do not trust it" if each.last.value >= HARDLY_CHANGED else ""
            numbers.append(f"{SPOKEN[each.method]} {each.last.value:.2f}{doubt}")
        return f"rank correlation with maps of random weights   {', '.join(numbers)}"
