"""Image files of a folder at any depth, and the omitted files and folders.

Hidden and system files and folders are omitted. Each real folder is visited once, so that links
cannot cause a loop.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from medtl.data.printable_names import printable
from medtl.errors import MedtlError
from medtl.imaging import decode
from medtl.imaging.dicom_header import is_dicom

PICTURES = frozenset(
    (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".tif", ".tiff", ".bmp", ".dib",
     ".gif", ".webp", ".pbm", ".pgm", ".ppm", ".pnm", ".jp2", ".j2k", ".jpc", ".j2c", ".jpf",
     ".jpx")
)  # fmt: skip
"""Suffixes of picture formats that `decode` supports."""
DICOMS = frozenset((".dcm", ".dicom"))
SUFFIXES = PICTURES | DICOMS

_SYSTEM = frozenset(
    ("@eadir", "@recycle", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "desktop.ini",
     "ehthumbs.db", "lost+found", "recycler", "system volume information", "thumbs.db")
)  # fmt: skip
"""Folders of file servers, cameras and systems, case-insensitive; dot files are also hidden."""
_TOLD_BY_CONTENT = ("", ".ima")  # no suffix, and that of Siemens scanners: identified by content
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_LONGEST_SUFFIX = 9  # characters; longer ones are text after a dot
_SIGNATURES = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM", b"GIF8")
_HEAD = 2048  # bytes read to detect DICOM and its SOP class
_READERS = 16  # concurrently open files: on a network drive reading is mostly waiting

_NO_PICTURE = (
    "1.2.840.10008.1.3.10",  # DICOMDIR
    "1.2.840.10008.5.1.4.1.1.9.",  # waveforms
    "1.2.840.10008.5.1.4.1.1.11.",  # presentation states
    "1.2.840.10008.5.1.4.1.1.66",  # raw data, registrations, segmentations
    "1.2.840.10008.5.1.4.1.1.67",  # real world values
    "1.2.840.10008.5.1.4.1.1.68.",  # surfaces
    "1.2.840.10008.5.1.4.1.1.78.",  # measurements of the eye
    "1.2.840.10008.5.1.4.1.1.88.",  # reports, key object selections
    "1.2.840.10008.5.1.4.1.1.104.",  # documents
    *(f"1.2.840.10008.5.1.4.1.1.481.{kind}" for kind in range(3, 10)),  # structures, plans
    "1.2.840.10008.5.1.4.1.1.200.",  # protocols
    "1.2.840.10008.5.1.4.38.",  # hanging protocols
    "1.2.840.10008.5.1.4.39.",  # colour palettes
)
"""Prefixes of SOP classes without an image (DICOM PS3.4 B.5 and PS3.6 A)."""


@dataclass(frozen=True)
class Found:
    """Contents of a folder at any depth: paths below it, joined by /, in alphabetical order.

    Attributes:
        images: image files, and volumes, which the decoder refuses.
        others: other files.
        folders: visited folders, and links to folders.
        hidden: hidden images, and images in hidden or system folders.
        without_picture: DICOM files of a SOP class without an image (reports and so on).
        entered_before: links to folders visited elsewhere, or to a parent.
        broken: broken links.
    """

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    without_picture: list[str] = field(default_factory=list)
    entered_before: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        """Counts the omitted images, one line per kind."""
        kinds = (
            (self.hidden, "hidden images, and those in hidden or system folders, left out"),
            (
                self.without_picture,
                "DICOM files without an image (reports, presentation states, segmentations) left "
                "out",
            ),
            (self.entered_before, "links to folders that are read elsewhere, not followed"),
            (self.broken, "links that lead nowhere, left out"),
        )
        return tuple(with_examples(what, paths) for paths, what in kinds if paths)


def find_images(root: Path) -> Found:
    """Sorts all files of a folder into images and others.

    Files are classified by suffix; those without one, and Siemens' `.ima`, by their first bytes.

    Raises:
        MedtlError: a folder cannot be opened.
    """
    found = Found()
    files = _walked(root, found)
    unsure = [path for path in files if suffix(path) in DICOMS or _told_by_content(path)]
    with ThreadPoolExecutor(_READERS) as pool:
        heads = dict(zip(unsure, pool.map(lambda path: _head(root / path), unsure), strict=True))
    for path in files:
        if path in heads and _sop_class(heads[path]).startswith(_NO_PICTURE):
            found.without_picture.append(path)
        elif _is_image(path, heads.get(path)):
            found.images.append(path)
        else:
            found.others.append(path)
    for paths in vars(found).values():
        paths.sort()
    return found


def images_below(folder: Path) -> Iterator[Path]:
    """Yields the image files (and volumes) of a folder at any depth, in alphabetical order."""
    yield from (folder / path for path in find_images(folder).images)


def suffix(path: str) -> str:
    """Returns the suffix in lower case, including that of a compression (`.dcm.gz`); else ''.

    Numbers with dots, as in scanners' DICOM file names, are not suffixes.
    """
    stem, dot, last = path.rpartition("/")[2].casefold().rpartition(".")
    if not (dot and stem) or last.isdigit() or not last.isalnum() or len(last) > _LONGEST_SUFFIX:
        return ""
    return f"{suffix(stem)}.{last}" if f".{last}" in _PACKED else f".{last}"


def with_examples(what: str, paths: Sequence[str]) -> str:
    """Formats a line on files: their number and the first three names."""
    named = ", ".join(map(printable, paths[:3]))
    return f"{what}: {len(paths)} ({named}{', ...' if len(paths) > 3 else ''})"


def by_suffix(paths: Iterable[str]) -> str:
    """Counts suffixes, the most frequent first: `15 .svs, 2 without a suffix`."""
    counts = Counter(suffix(path) or "without a suffix" for path in paths)
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _walked(root: Path, found: Found) -> list[str]:
    """Lists the files that are not hidden; adds folders and links to `found`.

    Real folders are visited before links, so that a file is listed under its own path.
    """
    above = {_identity(folder) for folder in (root, *root.resolve().parents)}
    files: list[str] = []
    pending, links = [""], list[str]()
    while pending or links:
        if not pending:
            link = links.pop(0)
            folder = _identity(root / link)
            if folder in above:
                found.entered_before.append(link)
                continue
            above.add(folder)
            pending.append(link)
        here = pending.pop()
        for entry in _entries(root / here):
            path = f"{here}/{entry.name}" if here else entry.name
            if entry.is_dir():
                if _is_system(entry.name):
                    found.hidden.extend(_images_by_name(root, path))
                    continue
                found.folders.append(path)
                if entry.is_symlink():
                    links.append(path)
                elif (folder := _identity(root / path)) in above:
                    found.entered_before.append(path)
                else:
                    above.add(folder)
                    pending.append(path)
            elif not entry.is_file():
                if entry.is_symlink():
                    found.broken.append(path)
            elif not _is_system(entry.name):
                files.append(path)
            elif suffix(entry.name) in SUFFIXES:
                found.hidden.append(path)
    return files


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise MedtlError(f"{folder} cannot be opened ({error.strerror})") from error


def _identity(folder: Path) -> tuple[int, int]:
    """Returns a number pair that all paths of one folder share."""
    stat = folder.stat()
    return stat.st_dev, stat.st_ino


def _is_system(name: str) -> bool:
    return name.startswith((".", "__")) or name.casefold() in _SYSTEM


def _images_by_name(root: Path, folder: str) -> list[str]:
    return [
        Path(place, name).relative_to(root).as_posix()
        for place, _, names in os.walk(root / folder)
        for name in names
        if suffix(name) in SUFFIXES
    ]


def _told_by_content(path: str) -> bool:
    return suffix(path) in _TOLD_BY_CONTENT


def _head(file: Path) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read(_HEAD)
    # The decoder reports errors in images; other files do not matter.
    except OSError:
        return b""


def _is_image(path: str, head: bytes | None) -> bool:
    # Volumes are listed too, so that they are refused by name, or skipped and counted.
    if suffix(path) in SUFFIXES or path.casefold().endswith(decode.SUFFIXES):
        return True
    return head is not None and (is_dicom(head) or (not suffix(path) and _is_picture(head)))


def _is_picture(head: bytes) -> bool:
    return head.startswith(_SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _sop_class(head: bytes) -> str:
    """Reads the SOP class from the first bytes of a DICOM file; '' for other files.

    Searches the file meta information (0002,0002), then the data set (0008,0016), with explicit or
    implicit value representation.
    """
    if not is_dicom(head):
        return ""
    for tag, size in ((b"\2\0\2\0UI", 2), (b"\x08\0\x16\0UI", 2), (b"\x08\0\x16\0", 4)):
        place = head.find(tag)
        if place >= 0:
            start = place + len(tag) + size
            length = int.from_bytes(head[start - size : start], "little")
            return head[start : start + length].decode("latin-1").strip("\0 ")
    return ""
