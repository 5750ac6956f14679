"""Predictions of image files: decoded ahead, while the network computes."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import torch

from medtl.cache import content_key
from medtl.data.unlabelled import Unlabelled
from medtl.errors import MedtlError
from medtl.imaging.bounded_decoding import PROCESSES, SECONDS, BoundedDecoders
from medtl.imaging.dicom_header import is_dicom
from medtl.pipeline.partial_predictions import Row
from medtl.serving.audit import without_details
from medtl.serving.handler import ServedModel
from medtl.serving.micro_batching import MicroBatcher
from medtl.serving.request_images import FileReader
from medtl.serving.request_parsing import RefusedRequest

CHUNK = 64  # samples that are answered, and kept, together
AHEAD = 2  # chunks that are decoded ahead of the network
PIXELS = 12 * 224**2
"""Per forward pass. Larger ones need fewer waits of threads for each other than a server's, which
answers as soon as it can; activations of much larger ones exceed the processor's cache."""
IMAGES_ON_GPU = 64  # per forward pass
_HEAD = 132  # bytes that tell a DICOM file


def chunk_keys(inputs: Unlabelled) -> list[str]:
    """Returns the keys of consecutive chunks, of path, size and modification time of their files.

    A file that is missing or cannot be looked at has its path only.
    """
    return [
        content_key([[_identity(file) for file in sample] for sample in inputs.files(*bounds)])
        for bounds in chunk_bounds(len(inputs.frame))
    ]


def chunk_bounds(count: int) -> list[tuple[int, int]]:
    """Returns the first sample of each chunk of `count`, and the one after its last."""
    return [(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]


def pass_size(image_size: int, device: torch.device) -> int:
    """Returns the images of a forward pass."""
    if device.type != "cpu":
        return IMAGES_ON_GPU
    return min(CHUNK, max(1, PIXELS // image_size**2))


def answer_files(
    served: ServedModel,
    chunks: Iterable[list[list[Path | None]]],
    explain: bool,
    request_id: str,
    device: torch.device,
) -> Iterator[list[Row]]:
    """Yields the rows of each chunk of samples, as the server answers them.

    Files are decoded ahead. Few of them are in memory at a time, whatever their number.

    Args:
        served: the model.
        chunks: files of samples; None for a missing image.
        explain: true adds heat maps.
        request_id: field of every row.
        device: that of the network.

    Raises:
        MedtlError: the network has no heat maps.
    """
    size = pass_size(served.bundle.image_size, device)
    passes = MicroBatcher(served.bundle.answer, size)
    served.passes = passes
    origin = served.origin(request_id)
    processes = min(PROCESSES, os.cpu_count() or 1)
    # no other request waits here, so that a slow file may use all of its time
    decoders = BoundedDecoders(processes, seconds_beside=SECONDS)
    rendering = served.bundle.preprocessing.rendering
    with ExitStack() as stack:
        stack.callback(decoders.end)
        reader = stack.enter_context(
            FileReader(rendering, served.masked, most_slow=math.inf, decoders=decoders)
        )
        ahead = deque[tuple[list[list[Path | None]], Iterator]]()
        for files in chunks:
            ahead.append((files, reader.read(files)))
            if len(ahead) > AHEAD:
                yield _rows(served, *ahead.popleft(), explain, origin)
        while ahead:
            yield _rows(served, *ahead.popleft(), explain, origin)


def _rows(
    served: ServedModel,
    files: list[list[Path | None]],
    decoded: Iterator,
    explain: bool,
    origin: dict[str, str | None],
) -> list[Row]:
    try:
        rows, _ = served.answered(decoded, explain, origin)
    except RefusedRequest as error:  # the network has no heat maps
        raise MedtlError(f"{error}; pass heatmaps=false") from error
    for sample, row in zip(files, rows, strict=True):
        # the error of a DICOM file may cite its header, which names the patient
        if row["error"] is not None and any(map(_is_dicom, sample)):
            row["error"] = without_details(row["error"])
    return rows


def _is_dicom(file: Path | None) -> bool:
    if file is None:
        return False
    try:
        with file.open("rb") as opened:
            return is_dicom(opened.read(_HEAD))
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return False


def _identity(file: Path | None) -> tuple[object, ...]:
    if file is None:
        return ()
    path = os.path.abspath(file)
    try:
        stat = file.stat()
    except (OSError, ValueError):
        return (path,)
    return path, stat.st_size, stat.st_mtime_ns
