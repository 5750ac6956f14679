"""Which findings of a data set can be learned, once its splits are known."""

from __future__ import annotations

import numpy as np

from medtl.data.findings import ABSENT, NOT_KNOWN, PRESENT, found
from medtl.data.splits import SPLITS
from medtl.data.table import Table
from medtl.errors import MedtlError


def learnable(table: Table) -> tuple[tuple[str, ...], np.ndarray, tuple[str, ...]]:
    """K findings, what is known of them (int8 [N, K], see `found`), and lines for the reader.

    A finding needs a training image that has it and one that has it not; others are left out, and
    named. Data without a training image, which can only be evaluated on, keeps all.

    Args:
        table: with findings, and a split in every row.

    Raises:
        MedtlError: no finding is left, or none can be told right or wrong in some split.
    """
    labels = found(table.frame["label"], table.classes)
    split = table.frame["split"].to_numpy()
    kept = np.full(len(table.classes), True)
    if (split == "train").any():
        kept = _told_apart(labels[split == "train"])
        for name in SPLITS:
            if not (kept & _told_apart(labels[split == name])).any():
                raise MedtlError(
                    f"{table.name}: there is no finding that some images of the {name} split have, "
                    "and others not; add images of more patients, or give the splits yourself"
                )
    named, labels = np.array(table.classes, object), labels[:, kept]
    findings = tuple(named[kept])
    lines = _lines(labels, named[~kept].tolist())
    for name in SPLITS[1:]:
        here = labels[split == name]
        there = (here == PRESENT).any(axis=0)
        missing = [each for each, shown in zip(findings, there, strict=True) if not shown]
        if len(here) and missing:
            lines.append(f"no image of the {name} split has {', '.join(missing)}: not scored there")
    return findings, labels, tuple(lines)


def _told_apart(labels: np.ndarray) -> np.ndarray:
    """Which findings (bool [K]) are there in some images, and known not to be in others."""
    return (labels == PRESENT).any(axis=0) & (labels == ABSENT).any(axis=0)


def _lines(labels: np.ndarray, left_out: list[str]) -> list[str]:
    several = int(((labels == PRESENT).sum(axis=1) > 1).sum())
    unknown = int((labels == NOT_KNOWN).sum())
    lines = [
        f"multi-label: {labels.shape[1]} findings, of which an image has any number "
        f"({several} of {len(labels)} images have several)"
    ]
    if unknown:
        lines.append(f"{unknown} labels are unknown, and count nowhere")
    if left_out:
        lines.append(
            f"findings left out, in which training images do not differ: {', '.join(left_out)}"
        )
    return lines
