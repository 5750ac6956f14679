"""Decoding of images of five kinds by threads, and by processes."""

from __future__ import annotations

import io
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import click
import numpy as np
from PIL import Image
from pydicom.uid import JPEG2000Lossless, RLELossless

from benchmarks.compressed import plain, written
from medtl.data import decoding as decoders
from medtl.data.decoded_image import ImageFile, decode_image
from medtl.data.sources.phantoms import chest_xray
from medtl.imaging.rendering import Rendering

SIDE = 1000  # pixels of an original
RENDERED = 224  # pixels of a decoded image
FILES = 8  # different originals of each kind
HEADING = f"{'file':<26}{'processor':>11}{'threads':>11}{'processes':>11}   (ms an image)"


@click.command()
@click.option("--images", default=400, help="images that each of threads and processes decode")
@click.option("--rounds", default=2, help="measurements of each, in turns")
def decoding(images: int, rounds: int) -> None:
    """Measures decoding of phantoms by threads and by processes, on all processors."""
    with tempfile.TemporaryDirectory() as root:
        print(f"{SIDE} px to {RENDERED} px, {decoders.processors()} processors\n{HEADING}")
        for kind, encode in KINDS.items():
            files = _written(Path(root), encode)
            print(_line(kind, files, images, rounds), flush=True)


def _line(kind: str, files: list[Path], images: int, rounds: int) -> str:
    """Returns the milliseconds an image: of one processor, of threads, of processes."""
    began = time.process_time()
    for file in files:
        decode_image((file, 1), Rendering.of(RENDERED))
    processor = (time.process_time() - began) / len(files)
    ways: dict[str, list[float]] = {"threads": [], "processes": []}
    for _ in range(rounds):
        for way, found in ways.items():
            found.append(_seconds(files, images, processes=way == "processes"))
    columns = ("/".join(f"{1000 * each:.0f}" for each in found) for found in ways.values())
    return f"{kind:<26}{1000 * processor:>11.0f}" + "".join(f"{each:>11}" for each in columns)


def _seconds(files: list[Path], images: int, processes: bool) -> float:
    """Returns the seconds an image, without those in which processes are started."""
    ahead = decoders.FIRST + decoders.AHEAD if processes else 0
    numbers = itertools.islice(itertools.cycle(files), ahead + images)
    listed: list[ImageFile] = [(file, 1) for file in numbers]
    least = 0.0 if processes else np.inf
    with mock.patch.object(decoders, "PAYS", least), mock.patch.object(decoders, "BUSY", np.inf):
        decoded = decoders.decode_in_order(listed, Rendering.of(RENDERED))
        for _ in range(ahead):
            next(decoded)
        began = time.perf_counter()
        count = sum(1 for _ in decoded)
    return (time.perf_counter() - began) / count


def _written(folder: Path, encode: Callable[[np.ndarray], bytes]) -> list[Path]:
    """Writes phantoms of `SIDE` pixels; returns their files."""
    made = []
    for number, picture in enumerate(_pictures()):
        made.append(folder / f"{number}")
        made[-1].write_bytes(encode(picture))
    return made


def _pictures() -> Iterator[np.ndarray]:
    """Draws chest phantoms, uint8 [SIDE, SIDE]."""
    for seed in range(FILES):
        random = np.random.default_rng(seed)
        yield chest_xray.draw(random, chest_xray.Anatomy.drawn(random), ("clear",), SIDE)


def _picture_file(kind: str, picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind)
    return file.getvalue()


def _dicom(picture: np.ndarray, syntax: str = "") -> bytes:
    """Encodes 12 bits of a picture as a DICOM file, compressed in `syntax` if there is one."""
    header = plain(picture.astype(np.uint16) << 4, 12)
    if syntax:
        header.compress(syntax)
    return written(header)


KINDS: dict[str, Callable[[np.ndarray], bytes]] = {
    "JPEG": lambda picture: _picture_file("JPEG", picture),
    "PNG": lambda picture: _picture_file("PNG", picture),
    "DICOM, uncompressed": _dicom,
    "DICOM, JPEG 2000": lambda picture: _dicom(picture, JPEG2000Lossless),
    "DICOM, run lengths": lambda picture: _dicom(picture, RLELossless),
}
