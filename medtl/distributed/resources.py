"""Share of cores or GPUs of each worker on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch


def shares(workers: int, cores: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """The environment of each of the workers, of which each works as if it were alone.

    The GPUs, by the names that CUDA knows them by, go round among the workers.
    """
    own = {"OMP_NUM_THREADS": str(max(1, cores // workers)), "TQDM_DISABLE": "1"}
    if not gpus:
        return [own] * workers
    return [{**own, "CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(workers)]


def cores() -> int:
    """The cores that this process may use, or as many threads as the user allows."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal():
        return int(threads)
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def gpus(device: str) -> list[str]:
    """The GPUs that `device` leaves the choice among."""
    if device not in ("auto", "cuda"):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return visible.split(",")[:count] if visible else [str(index) for index in range(count)]
