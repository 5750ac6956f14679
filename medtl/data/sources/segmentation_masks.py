"""Detection of segmentation masks among images, by name and corresponding image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medtl.data.image_files import suffix, with_examples
from medtl.imaging.decode import decode
from medtl.imaging.pixels import UnreadableImage

_WORD = r"(masks?|seg|segmentations?|segmented|ground[ _-]?truth|gt|labels?|annotations?|contours?)"
_FOLDER = re.compile(rf"(.*[\W_])?{_WORD}([\W_]+(images?|files?|png))?", re.IGNORECASE)
_AFTER = re.compile(rf"(?P<own>.+?)[\s_.-]+{_WORD}([\s_.-]*\(?\d+\)?)?", re.IGNORECASE)
_BEFORE = re.compile(rf"{_WORD}[\s_.-]+(?P<own>.+)", re.IGNORECASE)
_WHICH = re.compile(r"[\s_-]+[^\W_]+$")  # structure of a mask: `scan_lung_mask`
_LEAST_SHARE = 0.5  # least share of a mask folder's files with an image of the same name
_LOOKED_AT = 5  # files read of a folder that may be a class
_TWO_VALUES = 0.95  # least share of a mask's pixels that are near black or near white


@dataclass(frozen=True)
class Masks:
    """Paths of images and of masks.

    Attributes:
        images: paths other than masks.
        masks: paths named as masks, each with a corresponding image.
        doubtful: paths named as masks without a corresponding image; also in `images`.
    """

    images: list[str]
    masks: list[str]
    doubtful: list[str]

    def notes(self) -> tuple[str, ...]:
        """Counts the omitted masks, and the images that may be masks."""
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
    """Separates images from their masks in class folders.

    A mask is a file beside its image and named after it (`scan_mask.png`, `mask_scan.png`,
    `scan_segmentation_1.png`), or a file in a mask folder (`CLASS/masks/scan.png`) beside the
    images of the class or their folder.

    Args:
        paths: paths below the root, joined by /.
        level: depth of the class folder, whose own name is not checked.
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
    """Returns whether the last part of a path is a usual name of a mask folder."""
    return _FOLDER.fullmatch(folder.rpartition("/")[2]) is not None


def are_masks(root: Path, paths: Sequence[str], others: Sequence[str]) -> bool:
    """Returns whether a folder contains masks of the images in its sibling folders.

    Masks have the name of an image and two grey values.

    Args:
        root: base of the paths.
        paths: images in the folder.
        others: images in its sibling folders.
    """
    if _share_named_after(paths, {_stem(path) for path in others}) < _LEAST_SHARE:
        return False
    some = paths[:: max(1, len(paths) // _LOOKED_AT)][:_LOOKED_AT]
    return all(_has_two_values(root / path) for path in some)


def _mask_folder(path: str, level: int) -> str:
    """Returns the first mask folder below the class folder; '' for none."""
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
    """Yields the stem and, if it is that of a mask, the stems of possible images."""
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
