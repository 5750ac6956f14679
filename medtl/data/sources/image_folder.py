"""Images sorted into folders: a folder a class, or splits over classes."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import pandas as pd

from medtl.data.image_files import Found, by_suffix, find_images, suffix, with_examples
from medtl.data.printable_names import printable
from medtl.data.sources.csv_columns import SPLIT_NAMES
from medtl.data.sources.registry import FOLDER, Rows, Source
from medtl.data.sources.segmentation_masks import are_masks, is_named_as_masks, told_apart
from medtl.errors import MedtlError
from medtl.settings.data import Reading

_TABLES = frozenset((".csv", ".tsv", ".xls", ".xlsx", ".parquet"))
_ARRAYS = frozenset((".npz", ".h5"))  # images in one file, which a source may read
_ARCHIVES = frozenset((".zip", ".tar", ".tgz", ".tar.gz", ".gz", ".7z", ".rar"))
_DOCUMENTS = frozenset(
    ("", ".csv", ".html", ".ipynb", ".json", ".log", ".md", ".pdf", ".py", ".tsv", ".txt", ".xlsx",
     ".xml", ".yaml", ".yml")
)  # fmt: skip
"""Suffixes of files in folders other than classes (`docs`)."""

_PART = re.compile(
    r"(.*[\W_])?(images?|imgs?|parts?|batch|chunk|archive|shard|folds?|cv|k[\W_]?fold)[\W_]*\d+",
    re.IGNORECASE,
)
"""Names of archive parts and folds, which are not classes."""
_GROUP = re.compile(
    r"(patient|pat|person|subject|subj|sub|case|slide|site|hospital|cent(er|re))s?[\W_]*\w?\d+"
    r"|\d{4,}",
    re.IGNORECASE,
)
"""Names of patients or sites, which may each contain class folders."""


def read_folder(root: Path, reading: Reading) -> Rows:
    """Reads the rows of a folder of `CLASS/...`, or of `train/ valid/ test/` above classes.

    Paths start at `root`, patients are empty, and the split is given if there are split folders.
    The notes tell of omitted images. No option of `reading` applies.

    Raises:
        MedtlError: no images, images outside the class folders only, splits mixed with classes, a
            class folder without a readable image, folders that are not classes.
    """
    found = find_images(root)
    splits = _split_folders(root, found)
    level = 2 if splits else 1
    in_classes = [path for path in found.images if path.count("/") >= level]
    classes = _by_folder(in_classes, level)
    mask_classes = _mask_classes(root, classes)
    masks = told_apart(
        [path for folder, paths in classes.items() if folder not in mask_classes for path in paths],
        level,
    )
    labels = sorted({_label(path, level) for path in masks.images})
    lines = (
        *_merged(splits),
        *_beside(found, level),
        *(with_examples("masks of images left out", classes[folder]) for folder in mask_classes),
        *masks.notes(),
        *_others(found.others),
        *found.notes(),
    )
    _check_filled(root, found, splits, in_classes)
    lines += _check_emptied(root, found, level, {*labels, *map(_last, mask_classes)})
    _check_classes(root, found, labels, level)
    if len(labels) == 1:
        hint = "" if splits else _one_folder_down(root, masks.images)
        raise MedtlError(
            f"{root.name}: all {len(masks.images)} images are of one class, "
            f"{printable(labels[0])}; at least two classes are needed{hint}"
            f"{''.join(f'; {line}' for line in lines)}"
        )
    rows = [
        (printable(path), printable(_label(path, level)), "", splits.get(path.split("/")[0], ""))
        for path in masks.images
    ]
    frame = pd.DataFrame(rows, columns=["path", "label", "patient", "split"])
    return Rows(root, frame, lines, findings=False)


def _split_folders(root: Path, found: Found) -> dict[str, str]:
    """Maps the top folders to their splits; empty if they are classes."""
    tops = [folder for folder in found.folders if "/" not in folder]
    splits = {name: SPLIT_NAMES[name.casefold()] for name in tops if name.casefold() in SPLIT_NAMES}
    holding = {path.split("/")[0] for path in found.images if "/" in path}
    others = sorted(holding - set(splits))
    if splits and others:
        raise MedtlError(
            f"{root} holds split folders ({next(iter(splits))}) beside others "
            f"({printable(others[0])}): put every class into a split folder, or none; a class "
            f"needs a name other than {', '.join(SPLIT_NAMES)}"
        )
    return splits


def _merged(splits: dict[str, str]) -> list[str]:
    """Returns lines on folders that are merged into one split."""
    folders: dict[str, list[str]] = defaultdict(list)
    for folder, split in splits.items():
        folders[split].append(folder)
    return [
        f"{' and '.join(map(printable, names))} are one split, {split}"
        for split, names in folders.items()
        if len(names) > 1
    ]


def _by_folder(paths: Iterable[str], level: int) -> dict[str, list[str]]:
    """Groups images by the path of their class folder."""
    folders: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        folders["/".join(path.split("/")[:level])].append(path)
    return folders


def _mask_classes(root: Path, classes: dict[str, list[str]]) -> list[str]:
    """Finds class-level folders that contain masks of images in sibling folders."""
    found = []
    for folder in filter(is_named_as_masks, classes):
        above = folder.rpartition("/")[0]
        others = [
            path
            for other, inside in classes.items()
            if other != folder and other.rpartition("/")[0] == above
            for path in inside
        ]
        if are_masks(root, classes[folder], others):
            found.append(folder)
    return found


def _beside(found: Found, level: int) -> list[str]:
    """Describes the images, archives and tables outside the class folders."""
    lines = []
    images = [path for path in found.images if path.count("/") < level]
    if images:
        lines.append(with_examples("images beside the class folders left out", images))
    packed = [path for path in found.others if path.count("/") < level]
    packed = [path for path in packed if suffix(path) in _ARCHIVES]
    if packed:
        lines.append(with_examples("archives beside the class folders, not unpacked", packed))
    tables = _files_beside(found, _TABLES)
    if tables:
        what = "tables beside the class folders, not read (for its labels pass one as data)"
        lines.append(with_examples(what, tables))
    return lines


def _files_beside(found: Found, suffixes: Collection[str]) -> list[str]:
    return [path for path in found.others if "/" not in path and suffix(path) in suffixes]


def _others(paths: Sequence[str]) -> list[str]:
    """Counts the files in class folders that are not images, by suffix."""
    inside = [path for path in paths if "/" in path]
    if not inside:
        return []
    return [with_examples(f"files that are no images left out, {by_suffix(inside)}", inside)]


def _check_filled(
    root: Path, found: Found, splits: dict[str, str], in_classes: Sequence[str]
) -> None:
    """Refuses a root, or a split folder, without images in class folders."""
    for folder in splits or ("",):
        if any(path.startswith(f"{folder}/" if folder else "") for path in in_classes):
            continue
        beside = any(path.rpartition("/")[0] == folder for path in found.images)
        what = "images, but none in a folder that names their class" if beside else "no images"
        others = [path for path in found.others if path.startswith(f"{folder}/" if folder else "")]
        unread = f" (but {by_suffix(others)})" if others and not beside else ""
        listing = _files_beside(found, _TABLES | _ARRAYS)
        remedy = f"pass data={root / listing[0]} to read that file, or " if listing else ""
        raise MedtlError(
            f"{root / folder} holds {what}{unread}: {remedy}put them into one folder a class"
        )


def _check_emptied(root: Path, found: Found, level: int, known: set[str]) -> tuple[str, ...]:
    """Refuses a class without a readable image; returns a line for one missing in a split.

    Folders of documents are not classes.
    """
    lines = []
    filled = set(_by_folder(found.images, level))
    for folder in found.folders:
        if folder.count("/") != level - 1:
            continue
        if folder in filled:
            continue
        others = [path for path in found.others if path.startswith(f"{folder}/")]
        if others and {suffix(path) for path in others} <= _DOCUMENTS:
            continue
        holds, remedy = _emptied(found, folder, others)
        if level == 1 or _last(folder) not in known:
            raise MedtlError(f"{root / folder} {holds}: {remedy}, or remove it if it is no class")
        lines.append(f"{printable(folder)} {holds}")
    return tuple(lines)


def _emptied(found: Found, folder: str, others: Sequence[str]) -> tuple[str, str]:
    """Explains why a class folder has no image, and suggests a remedy."""
    if folder in found.entered_before:
        return "is a link to a folder that is read elsewhere", "give the class its own images"
    if any(path.startswith(f"{folder}/") for path in found.without_picture):
        return "holds DICOM files without an image only", "put images into it"
    if not others:
        return "holds no image", "put images into it"
    remedy = "convert its files to PNG, JPEG, TIFF or DICOM"
    return f"holds no image that can be read ({by_suffix(others)})", remedy


def _check_classes(root: Path, found: Found, labels: Sequence[str], level: int) -> None:
    """Refuses folders named as archive parts, folds, patients or sites."""
    if len(labels) < 2:
        return
    tables = _files_beside(found, _TABLES)
    remedy = (
        f"pass data={root / tables[0]} to read labels from it"
        if tables
        else "pass a CSV file with the columns path and label"
    )
    remedy += ", or put the images into one folder a class"
    if _differ_by_number(labels) and all(_PART.fullmatch(name) for name in labels):
        raise MedtlError(
            f"{root}: the folders {_some(labels)} are parts of an archive or folds, not classes: "
            f"{remedy}"
        )
    if not all(_GROUP.fullmatch(name) for name in labels):
        return
    below = [path.split("/") for path in found.images if path.count("/") > level]
    held = {(parts[level - 1], parts[level]) for parts in below}
    repeated = sorted(
        name for name, count in Counter(name for _, name in held).items() if count > 1
    )
    if len(repeated) > 1:
        raise MedtlError(
            f"{root}: the folders {_some(labels)} are patients or sites, not classes, and each "
            f"holds folders like {_some(repeated)}: {remedy}"
        )


def _differ_by_number(names: Sequence[str]) -> bool:
    return len({re.sub(r"\d+", "", name.casefold()) for name in names}) == 1


def _one_folder_down(root: Path, paths: Sequence[str]) -> str:
    """Suggests the folder to pass if the classes are one or more levels deeper."""
    depth = 1
    while True:
        names = {path.split("/")[depth] for path in paths if path.count("/") > depth}
        if any(path.count("/") == depth for path in paths) or not names:
            return ""
        if len(names) > 1:
            place = printable(str(root.joinpath(*paths[0].split("/")[:depth])))
            return f"; if {_some(sorted(names))} are the classes or splits, pass data={place}"
        depth += 1


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:3])) + (", ..." if len(names) > 3 else "")


def _label(path: str, level: int) -> str:
    return path.split("/")[level - 1]


def _last(folder: str) -> str:
    return folder.rpartition("/")[2]


SOURCE = Source("folder", FOLDER, Path.is_dir, read_folder)
