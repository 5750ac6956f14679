"""The script that decodes image files within bounds, in a process that may be ended; see `bounded`.

Reads from standard input: the length of an image file and the side of a square, 8 bytes each, and
the file. Writes to standard output: the length of an answer, 8 bytes, and the answer: a numpy file,
or the line that says why there is none. Its arguments are the folder with the package, the bytes of
memory that it may take beside its own, and the seconds after which it ends if nobody has ended it.
"""

from __future__ import annotations

import io
import os
import sys
import time
import warnings
from pathlib import Path

try:
    import resource
except ImportError:  # on Windows
    resource = None

NUMPY = b"\x93NUMPY"
"""With which an answer begins that is an image."""


def serve() -> None:
    """Answers until standard input ends."""
    package, memory, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    sys.path.insert(0, package)
    from medtl.data.decode import decode
    from medtl.data.depth import UnreadableImage
    from medtl.data.square import square

    def answer(data: bytes, image_size: int) -> bytes:
        import numpy as np

        file = io.BytesIO()
        try:
            np.save(file, square(decode(data), image_size), allow_pickle=False)
        except UnreadableImage as error:
            return str(error).encode()
        except MemoryError:
            return b"there is not enough memory to decode the image"
        return file.getvalue()

    warnings.simplefilter("ignore")
    _bound_memory(memory)
    # native code that prints must not print into an answer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    asked = sys.stdin.buffer
    while len(numbers := asked.read(16)) == 16:
        length, image_size = (int.from_bytes(numbers[at : at + 8], "little") for at in (0, 8))
        _bound_time(seconds)
        found = answer(asked.read(length), image_size)
        answers.write(len(found).to_bytes(8, "little") + found)
        answers.flush()


def _bound_memory(most: int) -> None:
    """Bounds the memory of this process, where the system can, and lets others go first."""
    if resource is None:
        return
    os.nice(5)
    pages = Path("/proc/self/statm")
    if pages.exists():
        most += int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _bound_time(seconds: int) -> None:
    """Has the system end this process after so many seconds of work: its parent may be gone."""
    if resource is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds, hard))


if __name__ == "__main__":
    serve()
