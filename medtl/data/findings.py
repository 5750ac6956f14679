"""Images with any number of findings: which an image has, which not, and which nobody knows.

Unknown findings are masked, as torchxrayvision does (Cohen et al. 2022, "TorchXRayVision: a library
of chest X-ray datasets and models", MIDL).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from medtl.data.labels import refuse_rows
from medtl.data.words import BETWEEN, NEGATIVES, NO_FINDING, UNKNOWN, parted

PRESENT, ABSENT, NOT_KNOWN = 1, 0, -1
"""What is known of a finding in an image."""


def has_findings(labels: pd.Series) -> bool:
    """Whether any image has several labels, or one that is unknown: then all have findings."""
    several = labels.str.contains(BETWEEN, regex=False)
    return bool((several | labels.str.startswith(UNKNOWN)).any())


def in_plain_order(file: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with one text for equal findings: in alphabetical order, the unknown ones last.

    An image without any is called `No Finding`, whatever the CSV calls it.

    Raises:
        MedtlError: an image has a finding and none, or one that is also unknown, or an unknown one
            without a name.
    """
    texts = {text: parted(text) for text in frame["label"].unique()}
    nothing = {text for text, (known, _) in texts.items() if _negative(known)}
    faults = (
        (
            {text for text in nothing if sum(map(len, texts[text])) > 1},
            "a finding beside the word for none",
            "keep one of the two",
        ),
        (
            {text for text, (known, unknown) in texts.items() if known & unknown},
            f"a finding that is there and unknown ({UNKNOWN})",
            "keep one of the two",
        ),
        (
            {text for text, (_, unknown) in texts.items() if "" in unknown or _negative(unknown)},
            f"a {UNKNOWN} without a finding",
            f"write {UNKNOWN}FINDING for each that is unknown",
        ),
    )
    for wrong, what, remedy in faults:
        refuse_rows(file, frame, frame["label"].isin(wrong), what, remedy)
    plain = {
        text: NO_FINDING if text in nothing else _text(known, unknown)
        for text, (known, unknown) in texts.items()
    }
    return frame.assign(label=frame["label"].map(plain))


def named_findings(labels: Iterable[str]) -> tuple[str, ...]:
    """All findings that labels (in plain order) name, in alphabetical order."""
    named = {name for text in set(labels) for part in parted(text) for name in part}
    return tuple(sorted(named - {NO_FINDING}))


def found(labels: pd.Series, findings: Sequence[str]) -> np.ndarray:
    """Of N images, which of K findings they have: int8 [N, K], 1 present, 0 absent, -1 unknown.

    `labels` are in plain order; findings that they name and that are none of the K do not count.
    """
    codes, texts = pd.factorize(labels)
    places = {name: place for place, name in enumerate(findings)}
    table = np.full((len(texts), len(findings)), ABSENT, np.int8)
    for row, text in zip(table, texts, strict=True):
        for names, value in zip(parted(text), (PRESENT, NOT_KNOWN), strict=True):
            row[[places[name] for name in names if name in places]] = value
    return table[codes]


def findings_text(present: Iterable[bool], findings: Sequence[str]) -> str:
    """The names of the findings that are there, joined by |; `No Finding` for none."""
    names = [name for name, there in zip(findings, present, strict=True) if there]
    return BETWEEN.join(names) or NO_FINDING


def members(labels: np.ndarray, classes: int) -> np.ndarray:
    """Of which classes each image is, or which findings it has: bool [N, K].

    `labels` are int [N] of `classes`, or int8 [N, K] of findings.
    """
    if labels.ndim == 2:
        return labels == PRESENT
    return labels[:, None] == np.arange(classes)


def kinds(labels: np.ndarray) -> np.ndarray:
    """One number for each image, by which sets of images can be made alike: int64 [N].

    Of labels int [N] they are the labels. Of findings int8 [N, K] it is the rarest finding that an
    image has, and K where it has none.
    """
    if labels.ndim == 1:
        return labels
    present = labels == PRESENT
    order = np.argsort(present.sum(axis=0), kind="stable")
    rarest = order[present[:, order].argmax(axis=1)]
    return np.where(present.any(axis=1), rarest, labels.shape[1])


def _negative(names: set[str]) -> bool:
    return any(name.casefold() in NEGATIVES for name in names)


def _text(known: set[str], unknown: set[str]) -> str:
    return BETWEEN.join([*sorted(known), *(f"{UNKNOWN}{name}" for name in sorted(unknown))])
