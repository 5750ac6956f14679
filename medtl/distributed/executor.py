"""What runs trials and cells: this process and its own, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from medtl.settings.execution import RAY, ClusterSettings


@contextmanager
def executor(settings: ClusterSettings) -> Iterator[None]:
    """Within what the settings ask for; Ray is not imported where it is not asked for.

    Raises:
        MedtlError: the cluster does not answer, or no node of it has room for a worker.
    """
    if settings.executor != RAY:
        yield
        return
    from medtl.distributed.ray_cluster import joined

    with joined(settings):
        yield
