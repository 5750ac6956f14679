"""Encoding of labels: classes, two classes, or findings of several a case.

Unknown findings are masked, as torchxrayvision does (Cohen et al. 2022, "TorchXRayVision: a library
of chest X-ray datasets and models", MIDL).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from medtl.errors import MedtlError, ParameterError
from medtl.label_syntax import (
    BETWEEN,
    NEGATED,
    NEGATIVE_WORD,
    NEGATIVES,
    NO_FINDING,
    UNKNOWN,
    negative_labels,
    negativity,
    parted,
)
from medtl.settings.fields import comma_list, quoted


def refuse_rows(file: Path, frame: pd.DataFrame, wrong: pd.Series, what: str, remedy: str) -> None:
    """Raises `MedtlError` where rows of a CSV are wrong: how many, and the first three."""
    if wrong.any():
        rows = [f"row {row + 2}: {frame['path'][row] or '(empty)'}" for row in frame.index[wrong]]
        more = ", ..." if len(rows) > 3 else ""
        count = f"{len(rows)} {'row has' if len(rows) == 1 else 'rows have'}"
        raise MedtlError(f"{file}: {count} {what} ({', '.join(rows[:3])}{more}); {remedy}")


PRESENT, ABSENT, NOT_KNOWN = 1, 0, -1
"""States of a finding in an image."""


def has_findings(labels: pd.Series) -> bool:
    """Returns whether any image has several labels, or an unknown one: then all have findings."""
    several = labels.str.contains(BETWEEN, regex=False)
    return bool((several | labels.str.startswith(UNKNOWN)).any())


def in_plain_order(file: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Sorts the findings of each row: in alphabetical order, the unknown ones last.

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
    """Returns all findings named by labels (in plain order), in alphabetical order."""
    named = {name for text in set(labels) for part in parted(text) for name in part}
    return tuple(sorted(named - {NO_FINDING}))


def encode_findings(labels: pd.Series, findings: Sequence[str]) -> np.ndarray:
    """Encodes K findings of N images: int8 [N, K], 1 present, 0 absent, -1 unknown.

    `labels` are in plain order; findings that they name and that are none of the K do not count.
    """
    codes, texts = pd.factorize(labels)
    places = {name: place for place, name in enumerate(findings)}
    table = np.full((len(texts), len(findings)), ABSENT, np.int8)
    for row, text in zip(table, texts, strict=True):
        for names, value in zip(parted(text), (PRESENT, NOT_KNOWN), strict=True):
            row[[places[name] for name in names if name in places]] = value
    return table[codes]


def membership_matrix(labels: np.ndarray, classes: int) -> np.ndarray:
    """Flags the class, or the findings, of each image: bool [N, K].

    `labels` are int [N] of `classes`, or int8 [N, K] of findings.
    """
    if labels.ndim == 2:
        return labels == PRESENT
    return labels[:, None] == np.arange(classes)


def stratification_key(labels: np.ndarray) -> np.ndarray:
    """Returns the number by which splits are stratified, one per image: int64 [N].

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


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Sorts labels alphabetically; of two, a negative one comes first."""
    ordered = sorted(labels)
    if len(ordered) == 2 and ordered[0] != NEGATIVE:
        first, second = (negativity(label, ordered) for label in ordered)
        if second > first or first == second == NEGATIVE_WORD:
            ordered.reverse()
    return tuple(ordered)


def in_given_order(name: str, labels: Iterable[str], ordinal: str) -> tuple[str, ...]:
    """Returns the labels in the order of the parameter `ordinal`, from the lowest grade on.

    Args:
        name: name of the data set, for messages.
        labels: all classes of the data.
        ordinal: comma list of the same labels, case-insensitive, quoted if they contain a comma.

    Raises:
        ParameterError: a label is missing in the list, or the data has none of that name.
    """
    known = {label.casefold(): label for label in labels}
    order = [word.casefold() for word in comma_list("ordinal", ordinal)]
    if sorted(order) != sorted(known):
        named = ",".join(quoted(label) for label in sorted(known.values()))
        allowed = f"all classes of {name}, each once, from the lowest grade to the highest: {named}"
        raise ParameterError("ordinal", ordinal, allowed)
    return tuple(known[word] for word in order)


def positive_class_note(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Returns a line if the names of two classes (in order) do not show the positive one.

    Neither name is negative, or both are.
    """
    if len(classes) != 2 or classes[0] == NEGATIVE:
        return ()
    other, positive = classes
    plainness = [negativity(label, classes) for label in classes]
    if plainness[0] > plainness[1] and plainness[1] < NEGATED:
        return ()
    reason = (
        "both names mean a negative finding"
        if plainness[1] >= NEGATED
        else "neither name means a negative finding, so the order is alphabetical"
    )
    return (
        f"scores are of {positive}, against {other}: {reason}; for those of {other} pass "
        f"positive={quoted(other)}",
    )
