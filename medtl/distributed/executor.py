"""Executor of trials and cells: processes on this machine, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from medtl.settings.execution import RAY, ClusterSettings


@contextmanager
def executor(settings: ClusterSettings) -> Iterator[None]:
    """Joins the Ray cluster of the settings, if they name one; Ray is imported only then.

    Raises:
        MedtlError: the cluster does not answer, or no node has room for a worker.
    """
    if settings.executor != RAY:
        yield
        return
    from medtl.distributed.ray_cluster import joined

    with joined(settings):
        yield
