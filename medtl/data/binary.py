"""Two classes out of many labels: what has any of some labels is positive, all else negative."""

from __future__ import annotations

import pandas as pd

from medtl.data.words import negative_labels, parted
from medtl.errors import ParameterError
from medtl.options import comma_list
from medtl.quoting import quoted

NEGATIVE, POSITIVE = "negative", "positive"
ANY = "any"
MOST_WORDS = 3  # labels of which the positive class is named
MOST_SHOWN = 20  # labels named in a message


def two_classes(name: str, labels: pd.Series, positive: str) -> pd.Series:
    """Maps each label to `negative`, to the name of the positive class, or to missing.

    An image without a positive label, but with an unknown one of them, is missing.

    The class names depend on `positive` alone, so that data sets with other labels can be compared:
    up to three labels are joined in alphabetical order (`bacteria or virus`); more, or `any`, give
    `positive`.

    Args:
        name: name of the data set, for messages.
        labels: text; several labels of one image are joined by |, unknown ones preceded by ?.
        positive: comma list of the positive labels, case-insensitive, quoted if they contain a
            comma; `any` for all labels except the negative ones (see `negative_labels`).

    Raises:
        ParameterError: a label is not in the data, or is `negative`.
    """
    parts = {text: tuple(map(_folded, parted(text))) for text in labels.unique()}
    words = sorted(comma_list("positive", positive), key=str.casefold)
    wanted = {word.casefold() for word in words}
    known = {name: word for each in parts.values() for part in each for name, word in part.items()}
    if wanted == {ANY}:
        negative = negative_labels(set(known.values()))
        wanted, words = set(known) - set(map(str.casefold, negative)), []
    _check_words(name, words, known)
    called = " or ".join(words) if 0 < len(words) <= MOST_WORDS else POSITIVE

    def label(text: str) -> str | None:
        given, unknown = parts[text]
        if wanted & set(given):
            return called
        return None if wanted & set(unknown) else NEGATIVE

    return labels.map({text: label(text) for text in parts})


def _folded(names: set[str]) -> dict[str, str]:
    """Returns the names by how they are compared: in any case."""
    return {name.casefold(): name for name in names}


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
                f"{ANY}, or of the labels of {name}: "
                f"{', '.join(map(quoted, labels[:MOST_SHOWN]))}{more}",
            )
