"""Two classes out of many labels: what has any of some labels is positive, all else negative."""

from __future__ import annotations

import pandas as pd

from medtl.errors import ParameterError
from medtl.options import comma_list

NEGATIVES = frozenset(
    ("0", "absent", "benign", "clear", "control", "false", "healthy", "neg", "negative", "no",
     "no finding", "none", "normal")
)  # fmt: skip
"""Labels that say that nothing was found, in any case."""

NEGATIVE, POSITIVE = "negative", "positive"
ANY = "any"
BETWEEN = "|"  # stands between several labels of one image
MOST_WORDS = 3  # labels of which the positive class is named
MOST_SHOWN = 20  # labels named in a message


def two_classes(name: str, labels: pd.Series, positive: str) -> pd.Series:
    """Each label as `negative`, or as the name of the positive class.

    The names follow from `positive` alone, so that data sets of other labels can be compared: the
    positive class is called by its labels in alphabetical order (`bacteria or virus`), and where
    they are more than three, or any, `positive`.

    Args:
        name: of the data set, for messages.
        labels: text, several labels of one image joined by |.
        positive: a comma list of the labels that make an image positive, in any case; `any` for
            all but those that say that nothing was found (`NEGATIVES`).

    Raises:
        ParameterError: one of them is no label of the data, or is `negative`.
    """
    parts = {text: _parts(text) for text in labels.unique()}
    words = sorted(comma_list("positive", positive), key=str.casefold)
    wanted = {word.casefold() for word in words}
    known = {part.casefold(): part for found in parts.values() for part in found}
    if wanted == {ANY}:
        wanted, words = set(known) - NEGATIVES, []
    _check_words(name, words, known)
    called = " or ".join(words) if 0 < len(words) <= MOST_WORDS else POSITIVE
    return labels.map(
        {
            text: called if wanted & {part.casefold() for part in found} else NEGATIVE
            for text, found in parts.items()
        }
    )


def _parts(text: str) -> list[str]:
    return [part for each in text.split(BETWEEN) if (part := each.strip())]


def _check_words(name: str, words: list[str], known: dict[str, str]) -> None:
    for word in words:
        if word.casefold() == NEGATIVE:
            raise ParameterError("positive", word, "it is what all other images are called")
        if word.casefold() not in known:
            labels = sorted(known.values(), key=str.casefold)
            more = f" and {len(labels) - MOST_SHOWN} more" if len(labels) > MOST_SHOWN else ""
            raise ParameterError(
                "positive",
                word,
                f"{ANY}, or of the labels of {name}: {', '.join(labels[:MOST_SHOWN])}{more}",
            )
