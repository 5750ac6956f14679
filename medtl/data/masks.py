"""Masks of segmentation among images: known by their names, and by the image that each is of."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medtl.data.decode import decode
from medtl.data.depth import UnreadableImage
from medtl.data.image_files import suffix, with_examples

_WORD = r"(masks?|seg|segmentations?|segmented|ground[ _-]?truth|gt|labels?|annotations?|contours?)"
_FOLDER = re.compile(rf"(.*[\W_])?{_WORD}([\W_]+(images?|files?|png))?", re.IGNORECASE)
_AFTER = re.compile(rf"(?P<own>.+?)[\s_.-]+{_WORD}([\s_.-]*\(?\d+\)?)?", re.IGNORECASE)
_BEFORE = re.compile(rf"{_WORD}[\s_.-]+(?P<own>.+)", re.IGNORECASE)
_WHICH = re.compile(r"[\s_-]+[^\W_]+$")  # what a mask is of: `scan_lung_mask`
_LEAST_SHARE = 0.5  # of the images in a folder of masks that are named as an image is
_LOOKED_AT = 5  # images of a folder that may be a class
_TWO_VALUES = 0.95  # share of the pixels of a mask that are near black or near white


@dataclass(frozen=True)
class Masks:
    """Paths of images, told apart.

    Attributes:
        images: those that are no masks.
        masks: named as masks, each with an image of the same name.
        doubtful: named as masks, without such an image: they are among `images`.
    """

    images: list[str]
    masks: list[str]
    doubtful: list[str]

    def notes(self) -> tuple[str, ...]:
        """Counts the masks that are left out, and the images that may be some."""
        kinds = (
            (self.masks, "masks of images left out"),
            (
                self.doubtful,
                "named as masks, but no image of that name lies beside them: taken as samples; "
                "move them out of the class folders if they are masks",
            ),
        )
        return tuple(with_examples(what, paths) for paths, what in kinds if paths)


def told_apart(paths: Sequence[str], level: int) -> Masks:
    """Tells images from their masks among the files of class folders.

    A mask lies beside its image and is named after it (`scan_mask.png`, `mask_scan.png`,
    `scan_segmentation_1.png`), or it lies in a folder of masks (`CLASS/masks/scan.png`) beside the
    images of the class or their folder.

    Args:
        paths: below the root, joined by /.
        level: the number of folders down to that of the class, which is not judged by its name.
    """
    in_folders: dict[str, list[str]] = defaultdict(list)
    plain: list[str] = []
    for path in paths:
        folder = _mask_folder(path, level)
        in_folders[folder].append(path) if folder else plain.append(path)
    stems = _stems_below({folder.rpartition("/")[0] for folder in in_folders}, plain)
    masks, doubtful = set[str](), set[str]()
    for folder, inside in in_folders.items():
        if _share_named_after(inside, stems[folder.rpartition("/")[0]]) >= _LEAST_SHARE:
            masks.update(inside)
        else:
            plain.extend(inside)
            doubtful.update(inside)
    named = defaultdict(set)
    for path in plain:
        named[path.rpartition("/")[0]].add(_stem(path))
    for path in plain:
        _, *owners = _owners(_stem(path))
        if any(own in named[path.rpartition("/")[0]] for own in owners):
            masks.add(path)
        elif owners:
            doubtful.add(path)
    return Masks([path for path in paths if path not in masks], sorted(masks), sorted(doubtful))


def is_named_as_masks(folder: str) -> bool:
    """Tells whether a folder is called as folders of masks are, by the last part of its path."""
    return _FOLDER.fullmatch(folder.rpartition("/")[2]) is not None


def are_masks(root: Path, paths: Sequence[str], others: Sequence[str]) -> bool:
    """Tells whether the images of a folder are masks of the images in the folders beside it.

    They are named as others are, and have two values.

    Args:
        root: where paths start.
        paths: of the images in the folder.
        others: of the images in the folders beside it.
    """
    if _share_named_after(paths, {_stem(path) for path in others}) < _LEAST_SHARE:
        return False
    some = paths[:: max(1, len(paths) // _LOOKED_AT)][:_LOOKED_AT]
    return all(_has_two_values(root / path) for path in some)


def _mask_folder(path: str, level: int) -> str:
    """Finds the first folder below that of the class that is named as masks are; '' for none."""
    parts = path.split("/")
    for place in range(level, len(parts) - 1):
        if is_named_as_masks(parts[place]):
            return "/".join(parts[: place + 1])
    return ""


def _stems_below(folders: set[str], paths: Sequence[str]) -> dict[str, set[str]]:
    """Collects for each folder the stems of the files below it, at any depth."""
    stems: dict[str, set[str]] = {folder: set() for folder in folders}
    for path in paths:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder in stems:
                stems[folder].add(_stem(path))
    return stems


def _share_named_after(paths: Sequence[str], stems: set[str]) -> float:
    found = sum(any(own in stems for own in _owners(_stem(path))) for path in paths)
    return found / len(paths)


def _stem(path: str) -> str:
    """Returns a file's name in lower case, without its suffix."""
    name = path.rpartition("/")[2].casefold()
    return name.removesuffix(suffix(name))


def _owners(stem: str) -> Iterator[str]:
    """Yields the stem, and where it is that of a mask the stems of images that it may be of."""
    yield stem
    for pattern in (_AFTER, _BEFORE):
        found = pattern.fullmatch(stem)
        if found:
            yield found["own"]
            yield _WHICH.sub("", found["own"])


def _has_two_values(file: Path) -> bool:
    try:
        pixels = decode(file.read_bytes())
    except (UnreadableImage, OSError):
        return False
    low, high = (int(end) for end in (pixels.min(), pixels.max()))
    near = (high - low) / 10
    return float(np.mean((pixels <= low + near) | (pixels >= high - near))) >= _TWO_VALUES
