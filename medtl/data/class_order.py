"""Order of the classes of a data set, and the positive one of two."""

from __future__ import annotations

from collections.abc import Iterable

from medtl.data.binary import NEGATIVE
from medtl.data.words import NEGATED, NEGATIVE_WORD, negativity
from medtl.quoting import quoted


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Sorts labels alphabetically; of two, a negative one comes first."""
    ordered = sorted(labels)
    if len(ordered) == 2 and ordered[0] != NEGATIVE:
        first, second = (negativity(label, ordered) for label in ordered)
        if second > first or first == second == NEGATIVE_WORD:
            ordered.reverse()
    return tuple(ordered)


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
