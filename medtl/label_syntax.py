"""Label syntax: several labels of one image, unknown ones, and negative ones."""

from __future__ import annotations

import re
from collections.abc import Collection

BETWEEN = "|"  # stands between several labels of one image
UNKNOWN = "?"  # stands before a label that is unknown for the image
NO_FINDING = "No Finding"

NEGATIVES = frozenset(
    ("0", "absent", "benign", "clear", "control", "controls", "false", "healthy", "neg",
     "negative", "no", "no finding", "no findings", "none", "normal", "unaffected", "uninfected",
     "unremarkable")
)  # fmt: skip
"""Labels of a negative finding, case-insensitive."""

NEGATED, NEGATIVE_WORD = 2, 3
"""Grades of `negativity`."""

_ALWAYS = re.compile(
    r"(no|without|negative for|neg for|absence of|free of) [^\W\d]"
    r"|(healthy|un(infected|affected|remarkable|diseased|involved|injured))\b"
    r"|no(tumou?r|cancer|covid|disease|finding|fracture|lesion|pneumonia|polyp)s?$"
)
_WHERE_NOTHING_IS_PLAINER = re.compile(
    r"(non|not|normal|control) [^\W\d]|.+ (negative|neg|absent|free|controls?)$"
)
_ALL_ELSE = re.compile(r"((all|any|the) )?(others?|rest|else|remaining|background)\b")


def negativity(label: str, labels: Collection[str]) -> int:
    """Grades how clearly a label means a negative finding, from 0 (not at all) to 3.

    The grade is 3 for `NEGATIVES`, 2 for a negation (`no_tumor`, `non-COVID`, `Negative for
    pneumonia`, `Healthy control`), and 1 for a remainder class (`other`).

    Args:
        label: the label; case, underscores, hyphens and a leading number are ignored.
        labels: all labels of the data: `NonDemented` is a negation if another is `MildDemented`.
    """
    text = _in_words(label)
    if text in NEGATIVES:
        return NEGATIVE_WORD
    if _ALWAYS.match(text) or _WHERE_NOTHING_IS_PLAINER.match(text) or _negates(text, labels):
        return NEGATED
    return int(_ALL_ELSE.match(text) is not None)


def negative_labels(labels: Collection[str]) -> set[str]:
    """Returns the negative labels of a data set.

    Beside a clearly negative label (`normal`), `non-COVID` is a finding, and so are
    `non-small cell` and `gram-negative`. `other` is always negative.
    """
    plain = {each for each in labels if _plainly(each)}
    return plain or {each for each in labels if negativity(each, labels) >= NEGATED}


def _plainly(label: str) -> bool:
    text = _in_words(label)
    return text in NEGATIVES or _ALWAYS.match(text) is not None


def _negates(text: str, labels: Collection[str]) -> bool:
    """Returns whether a text is `non` before part of another label, or `no` before a whole one."""
    others = {_in_words(each).replace(" ", "") for each in labels} - {text.replace(" ", "")}
    within = text[3:] if text.startswith("non") and len(text) > 5 else None
    whole = text[2:] if text.startswith("no") and len(text) > 3 else None
    return whole in others or (within is not None and any(within in each for each in others))


def _in_words(label: str) -> str:
    """Returns a label in lower case, words separated by spaces, without a leading number.

    >>> _in_words("0_NonDemented"), _in_words("0")
    ('non demented', '0')
    """
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)
    words = re.sub(r"[\W_]+", " ", apart.casefold()).strip()
    return re.sub(r"^\d+ (?=.*[^\W\d])", "", words)


def parted(text: str) -> tuple[set[str], set[str]]:
    """Splits a text into known and unknown labels.

    >>> parted("Mass|?Nodule") == ({"Mass"}, {"Nodule"})
    True
    """
    parts = {part for each in text.split(BETWEEN) if (part := each.strip())}
    unknown = {part for part in parts if part.startswith(UNKNOWN)}
    return parts - unknown, {part.removeprefix(UNKNOWN).strip() for part in unknown}
