"""Record of comparisons on a test split, and the level of the next one.

Repeated tests on one test split find a difference by chance. So every comparison of two versions is
recorded in a tag of the registered model, and each needs a higher confidence than the one before:
the allowed error is spent over the looks (Lan & DeMets 1983, Biometrika 70:659; for reuse of a test
split Feng et al. 2022, arXiv 2203.11377).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

TAG = "medtl.looks."  # prefix of a tag on a registered model, before a digest of the test cases
# MLflow's table of tags stores up to 5,000 characters.
KEPT_CASES = 384  # cases with the lowest codes, to recognize a test split
KEPT_PAIRS = 150
SHARED = 0.5  # least share of common cases that makes a test split a known one


def confidence_at(look: int, confidence: float) -> float:
    """Returns the required confidence of look `look`, from 1, for an overall `confidence`.

    Look k has the error `(1 - confidence) / (k * (k + 1))`; these sum to at most `1 - confidence`
    for any number of looks. The schedule is ours: half of the error is spent on the first look,
    where most models are compared, and the number of looks need not be fixed in advance.
    """
    return 1 - (1 - confidence) / (look * (look + 1))


@dataclass(frozen=True)
class Looks:
    """Comparisons on one test split.

    Attributes:
        total: number of comparisons.
        pairs: number of the look by version and champion; the latest ones if there are many.
        cases: uint32 [M], ascending: the lowest codes of the cases; all if `complete`.
    """

    total: int
    pairs: Mapping[tuple[int, int], int]
    cases: np.ndarray
    complete: bool

    def holds(self, codes: np.ndarray) -> bool:
        """Returns whether at least half of the cases (sorted, unique codes) are in this test split.

        A large split is compared by the cases that it would have kept.
        """
        known = codes if self.complete else codes[codes <= self.cases[-1]]
        # nothing to compare: an extra look is the safe side
        return len(known) == 0 or float(np.isin(known, self.cases).mean()) >= SHARED

    def text(self) -> str:
        """Encodes the looks as the value of a tag."""
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
        """Decodes the result of `text()`."""
        held = json.loads(text)
        pairs = {}
        for each in held["pairs"].split():
            version, champion, look = map(int, each.split(":"))
            pairs[version, champion] = look
        cases = np.frombuffer(base64.b64decode(held["cases"]), "<u4")
        return cls(held["total"], pairs, cases, held["complete"])


@dataclass(frozen=True)
class Look:
    """Comparison of `version` with `champion`, with its number among all looks.

    Attributes:
        number: from 1; unchanged if the same two were compared on these cases before.
        tag: tag of the registered model that records the comparison.
        text: value of the tag after the comparison.
    """

    number: int
    tag: str
    text: str


def next_look(
    tags: Mapping[str, str], version: int, champion: int, codes: np.ndarray, unrecorded: int
) -> Look:
    """Returns the look of a comparison of two versions on some cases.

    Counts looks at any test split that contains at least half of these cases, so that adding or
    removing a few images does not reset the count.

    Args:
        tags: tags of the registered model.
        version: version of the challenger.
        champion: version of the champion.
        codes: int64 [N], hashes of the compared cases.
        unrecorded: number of looks before there was a record.
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
