"""Device and precision of the computation, and out-of-memory errors."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from medtl.errors import MedtlError, ParameterError


def resolve_device(name: str) -> torch.device:
    """`auto` is the first GPU, else the CPU.

    Raises:
        ParameterError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ParameterError("device", name, "auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ParameterError("device", name, f"this machine has {torch.cuda.device_count()} GPUs")
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """`auto` is bf16 where the hardware multiplies in it (not merely emulates it), else float32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if fast else "float32"


def reuse_freed_memory() -> None:
    """Lets this process use its freed memory again instead of giving it back to the kernel.

    A training step on the CPU takes and frees the same gigabytes each time. By glibc's defaults
    the kernel gets back every larger piece at once, and has to clear the next one page by page,
    which takes as long as the arithmetic. Where the C library is another one, nothing is done.
    """
    if sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return
    no_maps, trim_threshold, never = -4, -1, 2**31 - 1  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
    library.mallopt(no_maps, 0)
    library.mallopt(trim_threshold, never)


def give_back_freed_memory() -> None:
    """Gives the kernel, and the GPU, the freed memory that this process keeps to use again."""
    gc.collect()
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which forward passes run."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


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
