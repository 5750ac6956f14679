"""A data set without some of its labels."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection

import numpy as np
import pandas as pd

from medtl.data.dataset import Dataset


def without(dataset: Dataset, labels: Collection[str]) -> Dataset:
    """Returns the data set without the samples of these labels; the splits of the others stay."""
    if not labels:
        return dataset
    kept = np.flatnonzero(~dataset.frame["label"].isin(labels))
    frame = dataset.frame.iloc[kept].reset_index(drop=True)
    classes = tuple(name for name in dataset.classes if name not in labels)
    named = ", ".join(sorted(labels))
    count = len(dataset.frame) - len(kept)
    text = f"{dataset.fingerprint} without {named}"
    return dataclasses.replace(
        dataset,
        classes=classes,
        frame=frame,
        labels=pd.Categorical(frame["label"], classes).codes.astype(np.int64),
        patients=dataset.patients[kept],
        groups=dataset.groups[kept],
        splits={
            name: np.flatnonzero(np.isin(kept, indices)) for name, indices in dataset.splits.items()
        },
        rows=dataset.rows[kept],
        fingerprint=hashlib.sha256(text.encode()).hexdigest()[:16],
        notes=(*dataset.notes, f"{count} samples labelled {named} were left out"),
    )
