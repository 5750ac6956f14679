"""Time that a table of 112,120 images takes, as many as ChestX-ray14 has, from measured rates."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from medtl.data import decoding
from medtl.data.decoded_image import ImageFile
from medtl.imaging.rendering import Rendering

TABLE = 112_120
TRAINED = 0.7  # share of the images in the training split
EPOCHS = 30  # of a head
SIDE = 1024  # pixels of an original
DIFFERENT = 32  # originals; each is read several times
WRITTEN = 256 << 20  # bytes that are written to measure the disk


@dataclass
class Rates:
    """Rates of this machine, in images or bytes a second; NaN where not measured."""

    decoded: float = float("nan")  # PNG files of SIDE x SIDE to 224 x 224, by all processors
    read: float = float("nan")  # bytes of files that are not in memory
    written: float = float("nan")  # bytes to the disk
    file: float = float("nan")  # mean bytes of an original


def measured_rates(rates: Rates, folder: Path, originals: int) -> None:
    """Measures decoding, reading and writing in a folder; `originals` images are decoded."""
    files = _originals(folder / "originals", min(originals, DIFFERENT))
    rates.file = float(np.mean([file.stat().st_size for file in files]))
    rates.written = _write_rate(folder / "written")
    rates.read = _read_rate(files)
    images: list[ImageFile] = [(files[at % len(files)], 1) for at in range(originals)]
    # the first ones are decoded by threads, and while processes start
    first = min(originals // 2, decoding.FIRST + decoding.AHEAD)
    with mock.patch.object(decoding, "PAYS", 0.0):
        decoded = decoding.decode_in_order(images, Rendering.of(224))
        for _ in range(first):
            next(decoded)
        began = time.perf_counter()
        count = sum(1 for _ in decoded)
    rates.decoded = count / (time.perf_counter() - began)
    print(
        f"decoding {rates.decoded:.0f} images a second ({SIDE} px PNG of {rates.file / 1e6:.2f} MB,"
        f" {os.cpu_count()} processors); disk: reads {rates.read / 1e6:.0f} MB, "
        f"writes {rates.written / 1e6:.0f} MB a second"
    )


def large_table(rates: Rates, passed: float, kept: float, trained: float) -> Iterator[str]:
    """Yields the hours of each stage for `TABLE` images, and their shares.

    Args:
        rates: of the machine.
        passed: images a second of the frozen pass.
        kept: bytes that are kept of an image at the head.
        trained: images a second of training a head on kept activations.
    """
    stages = {
        "disk: reading originals": TABLE * rates.file / rates.read,
        "decoder": TABLE / rates.decoded,
        "frozen pass": TABLE / passed,
        "disk: writing activations": TABLE * kept / rates.written,
        f"{EPOCHS} epochs of a head": EPOCHS * TRAINED * TABLE / trained,
    }
    total = sum(stages.values())
    yield f"  {TABLE:,} images, one stage after the other: {total / 3600:.2f} h"
    for name, seconds in stages.items():
        yield f"    {name:<28}{seconds / 60:>9.1f} min{seconds / total:>7.0%}"


def _originals(folder: Path, count: int) -> list[Path]:
    """Writes PNG files as large as those of ChestX-ray14: smooth shapes, and noise."""
    folder.mkdir()
    random, files = np.random.default_rng(0), []
    down, across = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    for number in range(count):
        x, y, spread = random.uniform(0.2, 0.8, 3)
        smooth = 180 * np.exp(-((across - x) ** 2 + (down - y) ** 2) / spread)
        grey = np.clip(smooth + random.normal(0, 1.2, smooth.shape), 0, 255).astype(np.uint8)
        files.append(folder / f"{number}.png")
        Image.fromarray(grey).save(files[-1])
    return files


def _write_rate(file: Path) -> float:
    block, began = os.urandom(1 << 22), time.perf_counter()
    with file.open("wb") as opened:
        for _ in range(WRITTEN // len(block)):
            opened.write(block)
        opened.flush()
        os.fsync(opened.fileno())
    seconds = time.perf_counter() - began
    file.unlink()
    return WRITTEN / seconds


def _read_rate(files: list[Path]) -> float:
    """Reads files that the kernel has dropped from memory, where it can."""
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    began = time.perf_counter()
    read = sum(len(file.read_bytes()) for file in files)
    return read / (time.perf_counter() - began)
