"""Labels of several readers of one image: their majority, and the shares that training fits.

Training by gradient minimises the cross-entropy of the shares; a linear head is solved on rows
weighted by them. All that is measured takes the label of more than half of the readers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medtl.data.label_encoding import NOT_KNOWN, PRESENT, encode_findings, two_classes

VOTES = "labels_of_readers"
"""Column of a table of which readers count by their shares: a tuple of texts, sorted."""

NO_MAJORITY = ""


def majority(texts: Sequence[str]) -> str:
    """Returns the label of more than half of the readers, `NO_MAJORITY` without one."""
    most = max(texts, key=texts.count)
    return most if 2 * texts.count(most) > len(texts) else NO_MAJORITY


def votes_in_two_classes(name: str, votes: pd.Series, positive: str) -> pd.Series:
    """Reduces the labels of all readers to two classes (see `two_classes`).

    Readers of an image whose label is unknown do not count; an image without another reader is
    missing.
    """
    known = two_classes(name, votes.explode(), positive).dropna()
    return known.groupby(level=0).agg(lambda texts: tuple(sorted(texts))).reindex(votes.index)


def with_first_of_votes(
    frame: pd.DataFrame, classes: Sequence[str]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Labels images without a majority by the first class of their most votes.

    Images of which no reader names a class are left out.

    Args:
        frame: with `VOTES`, and `NO_MAJORITY` as the label of these images.
        classes: the labels that some image has by majority, in order.

    Returns:
        The rows, and a note on votes for other labels, which count nowhere.
    """
    flat = frame[VOTES].explode()
    others = flat[~flat.isin(list(classes))]

    def first(votes: tuple[str, ...]) -> str:
        counts = [votes.count(name) for name in classes]
        return classes[int(np.argmax(counts))] if any(counts) else NO_MAJORITY

    tied = frame["label"] == NO_MAJORITY
    frame = frame.assign(label=frame["label"].mask(tied, frame[VOTES].map(first)))
    known = frame["label"] != NO_MAJORITY
    notes = []
    if len(others):
        named = ", ".join(sorted(others.unique()))
        notes.append(
            f"{len(others)} labels of readers count nowhere: no image is, by majority, {named}"
        )
    if not known.all():
        notes.append(f"{int((~known).sum())} images left out, which have only such labels")
    return frame[known], tuple(notes)


def reader_shares(votes: pd.Series, classes: Sequence[str], findings: bool) -> np.ndarray:
    """Returns the share of readers for each of K classes or findings: float32 [N, K].

    Readers who name another class have no share, so that the sum of a row may be below 1. Of a
    finding, readers to whom it is unknown do not count; where no other is left it is -1.

    Args:
        votes: [N], a tuple of labels each, of findings in plain order.
        classes: K names.
        findings: whether a label is any number of findings.
    """
    flat = votes.reset_index(drop=True).explode()
    image = flat.index.to_numpy()
    if findings:
        codes = encode_findings(flat, classes)
        known = codes != NOT_KNOWN
    else:
        codes = (flat.to_numpy()[:, None] == np.array(classes, object)).astype(np.int8)
        known = np.ones_like(codes, bool)
    seen, knowing = (np.zeros((len(votes), len(classes))) for _ in range(2))
    np.add.at(seen, image, codes == PRESENT)
    np.add.at(knowing, image, known)
    shares = seen / np.maximum(knowing, 1)
    return np.where(knowing > 0, shares, NOT_KNOWN).astype(np.float32)


def soft_targets(
    votes: pd.Series | None, classes: Sequence[str], findings: bool, left_out: int
) -> tuple[np.ndarray | None, str]:
    """Returns the shares of readers (see `reader_shares`) and a line on their use.

    Without votes, as no image has several rows, there are none. `left_out` images without a
    majority are of a split that is measured.
    """
    if votes is None:
        return None, "readers=soft is not used: no image has several rows"
    shares = reader_shares(votes, classes, findings)
    disagree = int((votes.map(set).map(len) > 1).sum())
    line = (
        f"readers=soft: training fits the share of readers for each label (readers of {disagree} "
        f"of {len(votes)} images disagree); scores, calibration and thresholds take the label of "
        "more than half of the readers"
    )
    tied = 0 if findings else int((shares.max(axis=1) <= 0.5).sum())
    if tied or left_out:
        line += (
            f"; {tied} images without one train and are not scored, {left_out} of valid and test "
            "are left out"
        )
    return shares, line
