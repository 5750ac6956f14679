"""Looks at a test split: how many comparisons have been made on it, and what the next one asks.

Whoever tries often enough wins by chance. So every comparison of two versions on a test split is
kept in a tag of the registered model, and the k-th is asked more confidence than the one before:
the share of errors that is allowed is spent over the looks (Lan & DeMets 1983, Biometrika 70:659;
for one test split used again and again Feng et al. 2022, arXiv 2203.11377).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

TAG = "medtl.looks."  # begins a tag on a registered model; a digest of the test cases ends it
# A tag of 5,000 characters is what MLflow's table of tags holds.
KEPT_CASES = 384  # of a test split, by which it is known again: those with the lowest codes
KEPT_PAIRS = 150
SHARED = 0.5  # of the cases compared, from which a test split is taken for one looked at before


def confidence_at(look: int, confidence: float) -> float:
    """What the look number `look`, from 1, is asked, so that all looks together err rarely enough.

    Look k may err in `(1 - confidence) / (k * (k + 1))` of all cases. These shares add up to
    `1 - confidence`, however many looks there are. The schedule is ours: half of all is spent on
    the first look, where most models are compared, and the looks need not be numbered in advance.
    """
    return 1 - (1 - confidence) / (look * (look + 1))


@dataclass(frozen=True)
class Looks:
    """The comparisons on one test split.

    Attributes:
        total: how many there were.
        pairs: version and champion to the number of their look; of very many the last.
        cases: uint32 [M], rising: the lowest codes of the cases, all where `complete`.
    """

    total: int
    pairs: Mapping[tuple[int, int], int]
    cases: np.ndarray
    complete: bool

    def holds(self, codes: np.ndarray) -> bool:
        """Whether at least half of the cases (sorted, unique codes) are of this test split.

        Of a large split it is judged by those cases that it would have kept.
        """
        known = codes if self.complete else codes[codes <= self.cases[-1]]
        # none to judge by: rather a look too many than one too few
        return len(known) == 0 or float(np.isin(known, self.cases).mean()) >= SHARED

    def text(self) -> str:
        """The looks as the value of a tag."""
        pairs = [f"{v}:{c}:{look}" for (v, c), look in self.pairs.items()]
        return json.dumps(
            {
                "total": self.total,
                "pairs": " ".join(pairs[-KEPT_PAIRS:]),
                "complete": self.complete,
                "cases": base64.b64encode(self.cases.astype("<u4").tobytes()).decode(),
            }
        )

    @classmethod
    def of_text(cls, text: str) -> Looks:
        """What `text()` came from."""
        held = json.loads(text)
        pairs = {}
        for each in held["pairs"].split():
            version, champion, look = map(int, each.split(":"))
            pairs[version, champion] = look
        cases = np.frombuffer(base64.b64decode(held["cases"]), "<u4")
        return cls(held["total"], pairs, cases, held["complete"])


@dataclass(frozen=True)
class Look:
    """One comparison of `version` with `champion`, and where it stands among the others.

    Attributes:
        number: from 1; the same again where the same two were compared on these cases before.
        tag: the tag of the registered model that tells of it.
        text: what the tag says once the comparison is made.
    """

    number: int
    tag: str
    text: str


def next_look(
    tags: Mapping[str, str], version: int, champion: int, codes: np.ndarray, unrecorded: int
) -> Look:
    """The look that comparing two versions on some cases is.

    Looks at any test split of which these cases are half or more count, so that a few images added
    or left out do not begin anew.

    Args:
        tags: those of the registered model.
        version: the challenger.
        champion: the champion.
        codes: int64 [N], a code a case, which are hashes; those that are compared.
        unrecorded: looks from before there was a record.
    """
    cases = np.unique(codes.astype(np.uint64).astype(np.uint32))
    tag = TAG + hashlib.sha256(cases.astype("<u4").tobytes()).hexdigest()[:16]
    splits = {name: Looks.of_text(text) for name, text in tags.items() if name.startswith(TAG)}
    own = splits.get(tag, Looks(0, {}, cases[:KEPT_CASES], complete=len(cases) <= KEPT_CASES))
    pair = (version, champion)
    if pair in own.pairs:
        return Look(own.pairs[pair], tag, own.text())
    before = sum(looks.total for looks in splits.values() if looks.holds(cases))
    number = before + unrecorded + 1
    pairs = {**own.pairs, pair: number}
    return Look(number, tag, Looks(own.total + 1, pairs, own.cases, own.complete).text())
