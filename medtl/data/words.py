"""The words of a label: several labels of one image, those that are unknown, and nothing found."""

from __future__ import annotations

BETWEEN = "|"  # stands between several labels of one image
UNKNOWN = "?"  # stands before a label of which nobody knows whether the image has it
NO_FINDING = "No Finding"

NEGATIVES = frozenset(
    ("0", "absent", "benign", "clear", "control", "false", "healthy", "neg", "negative", "no",
     "no finding", "none", "normal")
)  # fmt: skip
"""Labels that say that nothing was found, in any case."""


def parted(text: str) -> tuple[set[str], set[str]]:
    """The labels that a text gives an image, and those that it calls unknown.

    >>> parted("Mass|?Nodule") == ({"Mass"}, {"Nodule"})
    True
    """
    parts = {part for each in text.split(BETWEEN) if (part := each.strip())}
    unknown = {part for part in parts if part.startswith(UNKNOWN)}
    return parts - unknown, {part.removeprefix(UNKNOWN).strip() for part in unknown}
