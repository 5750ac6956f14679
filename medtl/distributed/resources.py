"""Share of cores or GPUs of each worker on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch


def shares(workers: int, cores: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """Returns the environment of each worker: its share of the cores, or a GPU.

    GPUs, by their CUDA names, are assigned in turn.

    >>> shares(3, 4, ["0", "1"])[2]["CUDA_VISIBLE_DEVICES"]
    '0'
    """
    own = {"OMP_NUM_THREADS": str(max(1, cores // workers)), "TQDM_DISABLE": "1"}
    if not gpus:
        return [own] * workers
    return [{**own, "CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(workers)]


def cores() -> int:
    """Returns the number of cores of this process, or `OMP_NUM_THREADS` if set."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal():
        return int(threads)
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def gpus(device: str) -> list[str]:
    """Returns the CUDA names of the GPUs that the parameter `device` allows."""
    if device not in ("auto", "cuda"):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return visible.split(",")[:count] if visible else [str(index) for index in range(count)]
