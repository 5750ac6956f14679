"""Device and precision of the computation, and out-of-memory errors."""

from __future__ import annotations

import ctypes
import gc
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from medtl.errors import MedtlError, ParameterError


def resolve_device(name: str) -> torch.device:
    """Returns the device of a name; `auto` is the first GPU, else the CPU.

    A GPU has its index, as the tensors on it have: PyTorch's `cuda` and `cuda:0` are not equal.
    A later one than the first becomes the current one, whose streams events and graphs use.

    Raises:
        ParameterError: this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device("cuda:0" if name == "cuda" else name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ParameterError("device", name, "auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and device.index >= torch.cuda.device_count():
        raise ParameterError("device", name, f"this machine has {torch.cuda.device_count()} GPUs")
    if device.index:
        torch.cuda.set_device(device)
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """Returns the precision; `auto` is bf16 if the hardware multiplies in it, else float32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if fast else "float32"


def hardware(device: torch.device) -> str:
    """Describes what rounding depends on: the GPU, or the instructions and threads of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    count = f"{threads} {'thread' if threads == 1 else 'threads'}"
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {count}"


def reuse_freed_memory() -> None:
    """Sets glibc to reuse freed memory of this process instead of returning it to the kernel.

    A training step on the CPU allocates and frees the same gigabytes each time. By default glibc
    unmaps larger blocks at once, and the kernel clears the pages of each new one, which takes as
    long as the arithmetic. Does nothing with another C library.
    """
    if sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return
    no_maps, trim_threshold, arenas, never = -4, -1, -8, 2**31 - 1  # M_... of malloc.h
    library.mallopt(no_maps, 0)
    library.mallopt(trim_threshold, never)
    library.mallopt(arenas, 1)  # each training has its own thread, and all use the same memory


def give_back_freed_memory() -> None:
    """Returns the freed memory that this process keeps to the kernel, and that of the GPU."""
    gc.collect()
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Returns the autocast context of forward passes: bfloat16 for `bf16`, else disabled."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


# messages of RuntimeErrors by which PyTorch's CPU allocator and oneDNN report a lack of memory
_ALLOCATORS = (
    "can't allocate memory",
    "could not create a memory",
    "could not create a primitive",
    "bad allocation",
    "bad_alloc",
)


class OutOfMemoryError(MedtlError):
    """Memory of the machine, or of its GPU, is insufficient."""


@contextmanager
def enough_memory(batch_size: int, image_size: int) -> Iterator[None]:
    """Turns each error of a lack of memory in the block into an `OutOfMemoryError`.

    `image_size` is the side of an image in pixels.

    Raises:
        OutOfMemoryError: memory is insufficient; the message says what to lower.
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
