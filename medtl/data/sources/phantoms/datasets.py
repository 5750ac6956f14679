"""The embedded data sets: phantoms drawn once, written as PNG files with a `labels.csv`."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from medtl.cache import content_key, get_or_create, kept_folder
from medtl.data.sources.phantoms import chest_xray, ct_slice, head_mr
from medtl.label_syntax import BETWEEN, NO_FINDING, UNKNOWN
from medtl.progress import progress

DRAWING = "2ab972ade31b5c271f2f7881df6fae6f7ccea993d051b3aeb4000ceff367ff89"
"""Version of the drawings: with another one, kept sets are drawn anew."""

TARGET = "phantoms"
PRETRAINING = "phantoms-source"
CASES = "phantoms-cases"
FINDINGS = "phantoms-findings"
NAMES = (TARGET, PRETRAINING, CASES, FINDINGS)
"""The names under which `data` takes the embedded sets."""

CHANCES = {"diffuse": 0.35, "focal": 0.35, "large heart": 0.25}
HIDDEN = 0.05  # share of findings whose label is unknown

COLUMNS = ("path", "label", "patient")
Drawn = tuple[np.ndarray, tuple[str, ...]]
"""An image, and its row of the table: its file name, its label, its patient, and what else."""


def write_chest_phantoms(
    folder: Path, seed: int = 0, patients: int = 300, image_size: int = 96
) -> None:
    """Writes chest phantoms (clear, diffuse, focal), two to four images a patient.

    Each patient has one condition; one image in ten shows another, as a course of disease
    does. Drawn on one kind of processor, the same seed gives the same bytes.

    Args:
        folder: an existing folder, for the images and `labels.csv` (path, label, patient).
        seed: of all randomness; a patient's images do not depend on the number of patients.
        patients: how many.
        image_size: side of the square images, in pixels.
    """
    numbers = progress(range(patients), patients, "drawing chest phantoms", "patient")
    _write(folder, (drawn for number in numbers for drawn in _chest(seed, number, image_size)))


def write_axial_phantoms(
    folder: Path, seed: int = 0, patients: int = 2400, image_size: int = 96
) -> None:
    """Writes cross-section phantoms (seven findings), one image a patient.

    The arguments are those of `write_chest_phantoms`.
    """
    numbers = progress(range(patients), patients, "drawing cross-section phantoms")
    _write(folder, (_axial(seed, number, image_size) for number in numbers))


def write_head_phantoms(
    folder: Path, seed: int = 0, patients: int = 480, image_size: int = 96
) -> None:
    """Writes head phantoms in cases of two images, T1 and T2 (see `mr`), one case a patient.

    The arguments are those of `write_chest_phantoms`; `labels.csv` also has `case`, `modality`.
    """
    numbers = progress(range(patients), patients, "drawing head phantoms", "case")
    drawn = (image for number in numbers for image in _head(seed, number, image_size))
    _write(folder, drawn, (*COLUMNS, "case", "modality"))


def write_finding_phantoms(
    folder: Path, seed: int = 0, patients: int = 240, image_size: int = 96
) -> None:
    """Writes chest phantoms with any number of findings (diffuse, focal, large heart).

    Each patient has each of them with a chance of its own; in one image of ten one of the first
    two has come or gone. Of every twentieth finding the label does not say whether it is there.
    The arguments are those of `write_chest_phantoms`.
    """
    numbers = progress(range(patients), patients, "drawing chest phantoms", "patient")
    _write(folder, (drawn for number in numbers for drawn in _findings(seed, number, image_size)))


def phantoms_table(name: str) -> Path:
    """Returns the `labels.csv` of an embedded set of `NAMES`, drawn at its first use."""
    folder = kept_folder("phantoms", content_key(name, DRAWING))
    return get_or_create(folder, WRITERS[name]) / "labels.csv"


def _chest(seed: int, patient: int, size: int) -> Iterator[Drawn]:
    random = np.random.default_rng([seed, 1, patient])
    anatomy = chest_xray.Anatomy.drawn(random)
    for visit, own in enumerate(random.spawn(int(random.integers(2, 5)))):
        other = own.integers(1, len(chest_xray.CLASSES)) if own.random() < 0.1 else 0
        label = chest_xray.CLASSES[(patient + other) % len(chest_xray.CLASSES)]
        image = chest_xray.draw(own, anatomy, (label,), size)
        yield image, (f"p{patient:04d}_{visit}.png", label, f"p{patient:04d}")


def _findings(seed: int, patient: int, size: int) -> Iterator[Drawn]:
    random = np.random.default_rng([seed, 5, patient])
    anatomy = chest_xray.Anatomy.drawn(random)
    chances = np.array([CHANCES[name] for name in chest_xray.FINDINGS])
    usual = random.random(len(chances)) < chances
    for visit, own in enumerate(random.spawn(int(random.integers(2, 5)))):
        there = usual.copy()
        if own.random() < 0.1:
            there[own.integers(2)] ^= True
        unknown = own.random(len(there)) < HIDDEN
        named = dict(zip(chest_xray.FINDINGS, there.tolist(), strict=True))
        image = chest_xray.draw(own, anatomy, [name for name in named if named[name]], size)
        label = [
            f"{UNKNOWN}{name}" if hidden else name
            for (name, shown), hidden in zip(named.items(), unknown.tolist(), strict=True)
            if shown or hidden
        ]
        text = BETWEEN.join(label) or NO_FINDING
        yield image, (f"f{patient:04d}_{visit}.png", text, f"f{patient:04d}")


def _axial(seed: int, patient: int, size: int) -> Drawn:
    random = np.random.default_rng([seed, 2, patient])
    label = ct_slice.CLASSES[patient % len(ct_slice.CLASSES)]
    return ct_slice.draw(random, label, size), (f"s{patient:04d}.png", label, f"s{patient:04d}")


def _head(seed: int, patient: int, size: int) -> Iterator[Drawn]:
    random = np.random.default_rng([seed, 3, patient])
    label = head_mr.CLASSES[patient % len(head_mr.CLASSES)]
    images = head_mr.draw(random, label, size)
    name = f"h{patient:04d}"
    for modality, image in zip(head_mr.MODALITIES, images, strict=True):
        yield image, (f"{name}_{modality}.png", label, name, name, modality)


def _write(folder: Path, images: Iterable[Drawn], columns: tuple[str, ...] = COLUMNS) -> None:
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(columns)
        for image, row in images:
            Image.fromarray(image).save(folder / row[0], compress_level=1)
            table.writerow(row)


WRITERS = {
    TARGET: write_chest_phantoms,
    PRETRAINING: write_axial_phantoms,
    CASES: write_head_phantoms,
    FINDINGS: write_finding_phantoms,
}
EMBEDDED = {name: functools.partial(phantoms_table, name) for name in NAMES}
