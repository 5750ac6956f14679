"""Separation of out-of-distribution images from those that a model was made for.

The measure is the AUROC of out-of-distribution detection (Hendrycks & Gimpel 2017, arXiv
1610.02136): how often an out-of-distribution image has a higher distance than an in-distribution
one.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from medtl.evaluation.confidence_intervals import Sampling
from medtl.evaluation.jackknife import Interval
from medtl.evaluation.scored_cases import Ranking

CENTRE = 0.5  # share of the side that a cropped image keeps
TRIMMED = 0.85  # share of the side that a trimmed image keeps


def inverted(images: np.ndarray) -> np.ndarray:
    """Inverts stored pixels [..., C, S, S]; a missing image (all 0) is unchanged."""
    white = np.iinfo(images.dtype).max
    present = images.any(axis=(-3, -2, -1), keepdims=True)
    return np.where(present, white - images, images)


def cropped(images: np.ndarray) -> np.ndarray:
    """Crops stored pixels [..., C, S, S] to the middle half of each side, and enlarges them."""
    return _middle(images, CENTRE)


def trimmed(images: np.ndarray) -> np.ndarray:
    """Crops stored pixels [..., C, S, S] to 0.85 of each side, and enlarges them."""
    return _middle(images, TRIMMED)


def turned(images: np.ndarray) -> np.ndarray:
    """Rotates stored pixels [..., C, S, S] by 90 degrees, counter-clockwise."""
    return np.rot90(images, axes=(-2, -1)).copy()


def _middle(images: np.ndarray, share: float) -> np.ndarray:
    side = images.shape[-1]
    edge = round(side * (1 - share) / 2)
    middle = images[..., edge : side - edge, edge : side - edge].astype(np.float32)
    flat = torch.from_numpy(middle).reshape(-1, 1, *middle.shape[-2:])
    whole = torch.nn.functional.interpolate(flat, (side, side), mode="bilinear")
    return whole.round().numpy().astype(images.dtype).reshape(images.shape)


def detection_auroc(
    inside: np.ndarray, outside: np.ndarray, groups: np.ndarray, seed: int
) -> Interval:
    """Computes the AUROC of an out-of-distribution score; ties count half.

    The 95 % interval over groups is that of `medtl.evaluation.confidence_intervals.measure`.

    Args:
        inside: scores [N] of in-distribution images.
        outside: scores [M] of out-of-distribution images.
        groups: any codes [N + M], in-distribution images first; images of one group (as an image
            and its inverted copy) are dependent.
        seed: seed of the blocks of more than 400 groups.
    """
    is_outside = np.repeat([0, 1], [len(inside), len(outside)])
    ranking = Ranking.of(is_outside == 1, np.concatenate([inside, outside]))
    sampling = Sampling.of(is_outside, groups, 2, seed, resamples=0)
    areas = sampling.table(lambda weights: ranking.areas(weights)[0][:, None])
    return sampling.estimate(areas[:, 0], sampling.evidence.overall["auroc"]).interval


@dataclass(frozen=True)
class DomainEvaluation:
    """Detection of out-of-distribution images.

    Attributes:
        distances: [N] by name of the set; the evaluated images first, then their transformed
            copies, then other data. Images with a distance above 1 are out of domain.
        table: a row a set: `against` (its name), `images`, `auroc` against the first set and
            `flagged` (the share out of domain), each with bounds.
        copies: names of the transformations, in the order of the sets.
        expected: expected share out of domain of the model's own images; None if unknown.
    """

    distances: Mapping[str, np.ndarray]
    table: pd.DataFrame
    copies: tuple[str, ...]
    expected: float | None

    def metrics(self) -> dict[str, float]:
        """Returns the metrics `domain_flagged` and `domain_auroc_COPY`."""
        aurocs = zip(self.copies, self.table["auroc"][1:], strict=False)
        of_copies = {f"domain_auroc_{name}": float(auroc) for name, auroc in aurocs}
        return {"domain_flagged": float(self.table["flagged"][0]), **of_copies}

    def lines(self) -> list[str]:
        """Formats the table for the console."""
        own = "" if self.expected is None else f"; {self.expected:.3f} expected of own images"
        lines = [f"in domain   (share of images out of domain{own}; AUROC against own images)"]
        width = max(25, *(len(name) for name in self.table["against"]))
        for row in self.table.to_dict("records"):
            auroc = _text(row, "auroc")
            known = "" if np.isnan(row["auroc"]) else f"   AUROC {auroc}"
            lines.append(f"  {row['against']:<{width}} {_text(row, 'flagged')}{known}")
        return lines


def _text(row: Mapping[Hashable, float], name: str) -> str:
    return f"{row[name]:.3f} ({row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f})"
