"""The processes that torchrun has started for one training: how they meet, and end together.

The first process speaks for all of them. Where another fails it leaves its line in the store that
torchrun keeps, and lets go of its connections; the first, which has waited for it, finds the line
there and fails with it.
"""

from __future__ import annotations

import gc
import os
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist

from medtl.errors import MedtlError
from medtl.training.parallel import ALONE, Alone, Together

LONGEST_WAIT = timedelta(hours=3)  # for another process: it may be reading all images for the first
LAST_WORDS = timedelta(seconds=30)  # that the first process has to end with another's line

_HEARD = "heard"


@contextmanager
def joined(device: str) -> Iterator[Alone]:
    """The team of this process while the block runs; alone where torchrun did not start several.

    `device` is the parameter. When the block fails, the first process raises the error; the others
    leave the block in silence, for it is the first that says it.

    Raises:
        SystemExit: not in the first: the process was stopped, or the first did not hear it fail.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    store, rank, size = next(dist.rendezvous("env://", timeout=LONGEST_WAIT))
    store = dist.PrefixStore("medtl", store)
    backend = _with_gpus() if device != "cpu" and torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=LONGEST_WAIT)
    team = Together(store)
    try:
        with warnings.catch_warnings():
            # of filters of one pixel: their bytes lie in the same order all the same
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            yield team
    except (Exception, KeyboardInterrupt) as error:
        if rank == 0:
            raise
        if os.environ.get("MEDTL_DEBUG") == "1":
            traceback.print_exc()
        if isinstance(error, KeyboardInterrupt):
            raise SystemExit(1) from None
        try:
            team.failure(error)
            # whatever still holds the connections is in the frames that have failed
            traceback.clear_frames(error.__traceback__)
            _leave()
            store.wait([_HEARD], LAST_WORDS)
        except Exception:
            raise SystemExit(1) from None
    finally:
        _leave()
        if rank == 0:
            with suppress(Exception):  # the store may have gone first
                store.set(_HEARD, "")


@contextmanager
def heard(team: Alone) -> Iterator[None]:
    """Makes the first failure of any process the failure of this block.

    Raises:
        MedtlError: another process has failed, or was lost.
    """
    try:
        yield
    except Exception as error:
        if said := team.failure(error):
            raise MedtlError(said) from error
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise MedtlError(
                "another process of this training was lost; the same command goes on from here"
            ) from error
        raise


def _with_gpus() -> str:
    """Tensors of GPUs by NCCL, all else by gloo; the GPU of this process's number is its own."""
    local = int(os.environ.get("LOCAL_RANK", 0))
    if local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    return "cpu:gloo,cuda:nccl"


def _leave() -> None:
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()
