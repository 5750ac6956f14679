"""A data set asked about the findings that a model knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from medtl.data.dataset import Dataset
from medtl.data.findings import NOT_KNOWN, found, named_findings
from medtl.errors import MedtlError


def with_findings(dataset: Dataset, findings: Sequence[str]) -> Dataset:
    """The same images and splits, with what is known of these findings.

    Findings that no label of the data names are unknown there: nobody says that they were looked
    for. Those that the data names beside are not asked about.

    Raises:
        MedtlError: the data names none of them.
    """
    if dataset.classes == tuple(findings):
        return dataset
    named = named_findings(dataset.frame["label"])
    strange = [name not in named for name in findings]
    if all(strange):
        raise MedtlError(
            f"{dataset.name} names {', '.join(named)}, and none of {', '.join(findings)}: the "
            "findings must have the same names"
        )
    labels = found(dataset.frame["label"], findings)
    labels[:, strange] = NOT_KNOWN
    lines = {
        "not named in this data, and so unknown": [
            name for name, is_strange in zip(findings, strange, strict=True) if is_strange
        ],
        "named in this data, and not asked about": [name for name in named if name not in findings],
    }
    notes = (f"{what}: {', '.join(names)}" for what, names in lines.items() if names)
    return dataclasses.replace(
        dataset, classes=tuple(findings), labels=labels, notes=(*dataset.notes, *notes)
    )
