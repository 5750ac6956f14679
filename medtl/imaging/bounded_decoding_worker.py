"""Script of a decoder process with bounded time and memory; see `bounded_decoding`.

Reads from standard input the length of a message and that of its first part, 8 bytes each, then the
message: the options of a rendering as JSON, then an image file. Writes to standard output the
length of the answer, 8 bytes, then the answer: a numpy file or an error line. Arguments: the folder
of the package, the bytes of memory beyond the baseline, and the seconds after which the process
exits if its parent has not killed it.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
import warnings
from pathlib import Path

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]  # mypy has no type for a module that may be absent

NUMPY = b"\x93NUMPY"
"""Prefix of an answer that is an image."""


def serve() -> None:
    """Decodes files until standard input closes."""
    package, memory, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    sys.path.insert(0, package)
    from medtl.imaging.pixels import UnreadableImage
    from medtl.imaging.rendering import Rendering

    def answer(data: bytes, options: bytes) -> bytes:
        import numpy as np

        file = io.BytesIO()
        try:
            pixels = Rendering(**json.loads(options)).of_file(data)
            np.save(file, pixels, allow_pickle=False)
        except UnreadableImage as error:
            return str(error).encode()
        except MemoryError:
            return b"there is not enough memory to decode the image"
        return file.getvalue()

    warnings.simplefilter("ignore")
    _bound_memory(memory)
    # output of native code must not mix with an answer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    asked = sys.stdin.buffer
    while len(numbers := asked.read(16)) == 16:
        length, begin = (int.from_bytes(numbers[at : at + 8], "little") for at in (0, 8))
        _bound_time(seconds)
        options = asked.read(begin)
        found = answer(asked.read(length - begin), options)
        answers.write(len(found).to_bytes(8, "little") + found)
        answers.flush()


def _bound_memory(most: int) -> None:
    """Limits the memory of this process, where the system can, and lowers its priority."""
    if resource is None:
        return
    os.nice(5)
    pages = Path("/proc/self/statm")
    if pages.exists():
        most += int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _bound_time(seconds: int) -> None:
    """Limits the CPU time of this process, in case its parent has exited."""
    if resource is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds, hard))


if __name__ == "__main__":
    serve()
