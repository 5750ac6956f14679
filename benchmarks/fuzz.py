"""Fuzzing of the reader: damaged files must give an image or a one-line error.

The reader runs in its own process, so that a crash or hang is detected and the next process
continues after the file that caused it.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import click
import numpy as np

from benchmarks.damage import CSV, damaged, whole_files

SECONDS = 10.0  # of the processor, for a file
PATIENCE = 60.0  # seconds without an answer after which a reader hangs
MEMORY = 1024.0  # MiB that a file may take beyond the reader itself
IMAGE, REFUSED = "read", "refused"
WINDOWS = {"percentiles": "pad", "40/400": "crop", "40/400,-600/1500,300/1": "pad"}
"""Windows that each file is read with too, and the shape of its square."""
LARGEST_LINE = 1100  # characters


@dataclass(frozen=True)
class Outcome:
    """Outcome of reading a file."""

    number: int
    kind: str
    what: str  # read, refused, or the fault of the reader
    seconds: float  # of the processor
    megabytes: float  # peak in MiB
    resident: float  # MiB that the reader holds afterwards

    @property
    def good(self) -> bool:
        """True if the file was read or refused within the limits."""
        return self.what in (IMAGE, REFUSED)


def outcomes(numbers: Sequence[int], seed: int) -> Iterator[Outcome]:
    """Yields what becomes of each damaged file, in order."""
    context = multiprocessing.get_context("spawn")
    while numbers:
        ours, theirs = context.Pipe()
        reader = context.Process(target=_read_all, args=(theirs, numbers, seed))
        reader.start()
        theirs.close()
        wrong = ""
        while numbers and not wrong:
            try:
                if ours.poll(PATIENCE):
                    yield ours.recv()
                    numbers = numbers[1:]
                else:
                    wrong = "hangs"
            except EOFError:
                wrong = "ends the process"
        if wrong:
            reader.kill()
        reader.join()
        if wrong:
            kind, _ = damaged(numbers[0], seed)
            what = f"{wrong} (exit status {reader.exitcode})"
            yield Outcome(numbers[0], kind, what, 0.0, 0.0, 0.0)
            numbers = numbers[1:]


@click.command()
@click.option("--files", default=20_000, help="damaged files")
@click.option("--seed", default=0, help="of the damage")
def fuzz(files: int, seed: int) -> None:
    """Reads damaged files of every format; exit status 1 if any shows a fault of the reader."""
    began = time.perf_counter()
    count: Counter[tuple[str, str]] = Counter()
    slowest: Outcome | None = None
    largest: Outcome | None = None
    first, last = 0.0, 0.0
    findings = []
    for each in outcomes(range(files), seed):
        count[each.kind, each.what if each.good else "finding"] += 1
        if not each.good:
            findings.append(each)
            print(f"file {each.number} ({each.kind}): {each.what}", flush=True)
        slowest = max(slowest or each, each, key=lambda it: it.seconds)
        largest = max(largest or each, each, key=lambda it: it.megabytes)
        last = each.resident or last
        if each.number < max(200, files // 20):
            first = last
    print(f"{'kind':<18}{'files':>8}{IMAGE:>8}{REFUSED:>9}{'findings':>10}")
    for kind in [*whole_files(), ""]:
        numbers = [
            sum(n for (k, w), n in count.items() if kind in ("", k) and w == what)
            for what in (IMAGE, REFUSED, "finding")
        ]
        print(f"{kind or 'all':<18}{sum(numbers):>8}{numbers[0]:>8}{numbers[1]:>9}{numbers[2]:>10}")
    assert slowest is not None, "no file was read"
    assert largest is not None
    print(f"slowest   file {slowest.number} ({slowest.kind}), {slowest.seconds:.2f} s")
    print(f"largest   file {largest.number} ({largest.kind}), {largest.megabytes:.0f} MiB")
    print(f"memory    {first:.0f} MiB after the first twentieth, {last:.0f} MiB at the end")
    print(f"time      {time.perf_counter() - began:.0f} s")
    raise SystemExit(int(bool(findings)))


def _read_all(connection: Connection, numbers: Sequence[int], seed: int) -> None:
    """Reads the files and sends what became of each; runs in the reader's process."""
    # native decoders write to both of these themselves
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as root:
        os.environ["MEDTL_CACHE"] = str(Path(root, "cache"))
        folder = Path(root, "images")
        folder.mkdir()
        for letter in "abcdef":
            (folder / f"{letter}.png").write_bytes(whole_files()["PNG"][0])
        for number in numbers:
            kind, data = damaged(number, seed)
            connection.send(_outcome(number, kind, data, folder))


def _outcome(number: int, kind: str, data: bytes, folder: Path) -> Outcome:
    before = _forget_the_most()
    began = time.process_time()
    try:
        what = _table(data, folder) if kind == CSV else _image(kind, data, folder)
    except Exception as error:  # a reader must raise nothing else; anything else is reported
        what = f"raises {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    seconds = time.process_time() - began
    most = _status("VmHWM") - before
    if seconds > SECONDS:
        what = f"takes {seconds:.0f} s"
    elif most > MEMORY:
        what = f"takes {most:.0f} MiB"
    return Outcome(number, kind, what, seconds, most, _status("VmRSS"))


def _image(kind: str, data: bytes, folder: Path) -> str:
    """Reads a file like a data set: the header, the pages, the pixels, the square.

    Then with the other windows and shapes; a window may also refuse values without units.
    """
    from medtl.data.dicom_metadata import header_of
    from medtl.imaging.decode import decode, in_window, pages, values_of
    from medtl.imaging.pixels import LARGEST, UnreadableImage, square
    from medtl.imaging.rendering import Rendering

    place = folder / ("file.tif" if kind == "TIFF" else "file.dcm")
    if kind == "TIFF" or kind.startswith("DICOM"):
        place.write_bytes(data)
        header_of(place, b"any key")
        pages(place)
    try:
        pixels = decode(data)
    except UnreadableImage as refusal:
        return _refused(str(refusal))
    shape = pixels.shape
    if not (
        pixels.dtype in (np.uint8, np.uint16)
        and (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3))
        and 1 <= shape[0] * shape[1] <= LARGEST
    ):
        return f"gives no image ({pixels.dtype} {shape})"
    squares = [square(pixels, 16)]
    values = values_of(data)
    for window, fit in WINDOWS.items():
        try:
            windowed = in_window(values, window).pixels
        except UnreadableImage as refusal:
            if _refused(str(refusal)) != REFUSED:
                return _refused(str(refusal))
        else:
            squares.append(Rendering(16, window, fit, "bicubic", crop=0.9).square(windowed))
    wrong = [each.shape for each in squares if each.shape not in ((1, 16, 16), (3, 16, 16))]
    return f"gives no square {wrong}" if wrong else IMAGE


def _table(data: bytes, folder: Path) -> str:
    from medtl.data.manifest import read_table
    from medtl.errors import MedtlError

    place = folder / "labels.csv"
    place.write_bytes(data)
    try:
        table = read_table(str(place))
    except MedtlError as refusal:
        return _refused(str(refusal))
    real = os.path.join(os.path.realpath(folder), "")
    files = [file for file in table.files() if file]
    outside = [file for file in files if not os.path.realpath(file).startswith(real)]
    return IMAGE if files and not outside else f"reads {outside[:1] or 'nothing'}"


def _refused(line: str) -> str:
    one = line.isprintable() and 0 < len(line) <= LARGEST_LINE
    return REFUSED if one else f"is not refused in one line: {line[:200]!r}"


def _forget_the_most() -> float:
    """Begins the measurement of the most memory anew; MiB that are held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> float:
    """Returns a size of this process in MiB, by its name in /proc/PID/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(name)
