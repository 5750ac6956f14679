"""Memory that does not suffice for a training: known by what each allocator raises, and said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from medtl.errors import MedtlError

# what PyTorch's allocator and its kernels say on the processor, in a plain RuntimeError
_ALLOCATORS = (
    "can't allocate memory",
    "could not create a memory",
    "could not create a primitive",
    "bad allocation",
    "bad_alloc",
)


class OutOfMemoryError(MedtlError):
    """The memory of the machine, or of its GPU, does not suffice."""


@contextmanager
def enough_memory(batch_size: int, image_size: int) -> Iterator[None]:
    """Says in one line that memory did not suffice for batches of images of a side in pixels.

    Raises:
        OutOfMemoryError: it did not.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise OutOfMemoryError(
            f"memory does not suffice for batches of {batch_size} images of {image_size} pixels "
            f"({reason}); lower batch_size or image_size, or train from a later cut-off on"
        ) from error


def _is_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(words in str(error) for words in _ALLOCATORS)
