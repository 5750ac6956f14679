"""MedMNIST as published: one `.npz` file a data set, with its splits.

Yang et al. 2023, "MedMNIST v2: A large-scale lightweight benchmark for 2D and 3D biomedical image
classification", Scientific Data 10:41.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medtl.data.sources.csv_file import checked_rows
from medtl.data.sources.exported_arrays import Row, exported
from medtl.data.sources.published_files import recognised
from medtl.data.sources.registry import LAYOUT, Rows, Source
from medtl.errors import MedtlError
from medtl.label_syntax import BETWEEN, NO_FINDING
from medtl.settings.data import Reading

NAME = "MedMNIST"
_DAMAGED = (
    ValueError, OSError, EOFError, IndexError, KeyError, NotImplementedError, MemoryError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
SPLITS = {"train": "train", "val": "valid", "test": "test"}
ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver",
    "lung-left", "lung-right", "pancreas", "spleen",
)  # fmt: skip
LABELS: dict[str, tuple[str, ...]] = {
    "pathmnist": (
        "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle",
        "normal colon mucosa", "cancer-associated stroma", "colorectal adenocarcinoma epithelium",
    ),
    "chestmnist": (
        "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia",
        "pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia",
    ),
    "dermamnist": (
        "actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma",
        "benign keratosis-like lesions", "dermatofibroma", "melanoma", "melanocytic nevi",
        "vascular lesions",
    ),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "pneumoniamnist": ("normal", "pneumonia"),
    "breastmnist": ("malignant", "normal, benign"),
    "bloodmnist": (
        "basophil", "eosinophil", "erythroblast", "immature granulocytes", "lymphocyte",
        "monocyte", "neutrophil", "platelet",
    ),
    "tissuemnist": (
        "Collecting Duct, Connecting Tubule", "Distal Convoluted Tubule",
        "Glomerular endothelial cells", "Interstitial endothelial cells", "Leukocytes",
        "Podocytes", "Proximal Tubule Segments", "Thick Ascending Limb",
    ),
    "organamnist": ORGANS,
    "organcmnist": ORGANS,
    "organsmnist": ORGANS,
}  # fmt: skip
"""Names of the labels by number, as published; of other sets the number is the label."""


def recognises(place: Path) -> bool:
    """Returns whether a file has the arrays of MedMNIST."""
    if place.suffix.casefold() != ".npz" or not zipfile.is_zipfile(place):
        return False
    try:
        with zipfile.ZipFile(place) as archive:
            names = set(archive.namelist())
    except _DAMAGED:
        return True  # so that reading says that it is damaged
    return {f"{split}_{kind}.npy" for split in SPLITS for kind in ("images", "labels")} <= names


def read(file: Path, reading: Reading) -> Rows:
    """Reads images, labels and splits; images are written once as PNG files into the cache.

    Raises:
        MedtlError: volumes, or arrays that cannot be read.
    """
    name = file.stem.casefold().partition("_")[0]
    try:
        images, labels = (
            {split: _shape(file, f"{split}_{kind}.npy") for split in SPLITS}
            for kind in ("images", "labels")
        )
        if any(len(shape) == 4 and shape[3] != 3 for shape in images.values()):
            raise MedtlError(f"{file} holds volumes, which are not read: pass a set of images")
        findings = len(labels["train"]) == 2 and labels["train"][1] > 1
        total = sum(shape[0] for shape in images.values())
        root, frame = exported("medmnist", [file], lambda: _rows(file, name, findings), total)
    except _DAMAGED as error:
        raise MedtlError(f"{file} cannot be read ({' '.join(str(error).split())})") from error
    said = [recognised(NAME, file), "patients are not published; splits are those of the file"]
    read_as = checked_rows(file, frame, reading, tuple(said), findings, root)
    return Rows(root, read_as.frame, read_as.notes, findings, file.stem)


def _rows(file: Path, name: str, findings: bool) -> Iterator[Row]:
    with np.load(file, allow_pickle=False) as arrays:
        for split, called in SPLITS.items():
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
            for image, label in zip(images, labels, strict=True):
                yield image, _text(name, np.atleast_1d(label), findings), "", called


def _shape(file: Path, name: str) -> tuple[int, ...]:
    """Reads the shape of an array without its values."""
    with zipfile.ZipFile(file) as archive, archive.open(name) as opened:
        version = np.lib.format.read_magic(opened)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(opened)[0]
        return np.lib.format.read_array_header_2_0(opened)[0]


def _text(name: str, label: np.ndarray, findings: bool) -> str:
    names = LABELS.get(name, ())
    numbers = np.flatnonzero(label).tolist() if findings else [int(label[0])]
    texts = [names[number] if number < len(names) else str(number) for number in numbers]
    return BETWEEN.join(texts) or NO_FINDING


SOURCE = Source(NAME, LAYOUT, recognises, read, named_by_file=True)
