"""Settings of workers: this machine, or the nodes of a Ray cluster."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from medtl.errors import ParameterError
from medtl.settings.fields import Settings, option

LOCAL, RAY = "local", "ray"
OF_RAY = ("cores_per_worker", "gpus_per_worker", "ray_address", "ship")
"""Parameters that need `executor=ray`."""


@dataclass(frozen=True)
class ClusterSettings(Settings):
    """Place and number of workers for trials of a search and cells of a study."""

    executor: str = option(
        LOCAL,
        "what runs trials and cells: this machine, or a Ray cluster",
        choices=(LOCAL, RAY),
        changes_result=False,
    )
    workers: int = option(1, "trials or cells that are run at once", low=1, changes_result=False)
    cores_per_worker: int = option(
        1, "processor cores that a worker on Ray asks for", low=1, changes_result=False
    )
    gpus_per_worker: float = option(
        0.0,
        "GPUs that a worker on Ray asks for; 0.5 lets two share one",
        low=0.0,
        changes_result=False,
    )
    ray_address: str = option(
        "",
        "the Ray cluster: auto (of this machine) or HOST:PORT; empty begins one here",
        changes_result=False,
    )
    ship: str = option(
        "path",
        "data on the nodes of a cluster: read there at the same path, or sent in Ray's store",
        choices=("path", "store"),
        changes_result=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.executor == RAY:
            if importlib.util.find_spec("ray") is None:
                raise ParameterError("executor", RAY, 'local, or first pip install "medtl[ray]"')
            if "://" in self.ray_address:
                raise ParameterError(
                    "ray_address",
                    self.ray_address,
                    "auto or HOST:PORT; begin the command on a machine of the cluster",
                )
            return
        for name in OF_RAY:
            value = getattr(self, name)
            if value != getattr(ClusterSettings, name):
                raise ParameterError(name, value, "only with executor=ray")
