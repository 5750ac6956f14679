"""Ray cluster: joining it, and workers that are replaced when they die."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import ray
import torch
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from ray.exceptions import RayError, RayTaskError

from medtl.data.dataset import Dataset
from medtl.data.manifest import EMBEDDED
from medtl.errors import MedtlError
from medtl.settings.execution import ClusterSettings

WAIT = 10.0  # seconds, timeout of a connection to a cluster
LOOK = 1.0  # seconds between two calls of `on_look`
MOST_SUCCESSORS = 3  # of one worker, one after the other

Worker = Any  # Ray's actor handle, which has no type; its method `open` returns '' or an error


@contextmanager
def joined(settings: ClusterSettings) -> Iterator[None]:
    """Joins the cluster of the settings, or starts one on this machine, while the block runs.

    Raises:
        MedtlError: it does not answer, or no node has room for a worker.
    """
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        _knock(settings.ray_address)
        ray.init(
            settings.ray_address or "local",
            logging_level=logging.ERROR,
            log_to_driver=False,
            include_dashboard=None if settings.ray_address else False,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise MedtlError(
            f"Ray at {settings.ray_address or 'this machine'} does not answer: "
            f"{_line(error)}; begin a cluster with ray start --head"
        ) from error
    finally:
        # Ray's own handler would leave the runs open at a scheduler's SIGTERM
        signal.signal(signal.SIGTERM, terminated)
    try:
        _check_room(settings)
        yield
    finally:
        ray.shutdown()


def begun_worker(kind: type, order: object, settings: ClusterSettings) -> Worker:
    """Starts a worker, `kind(order)`, on a node with enough cores and GPUs."""
    actor: Any = ray.remote(kind)  # Ray's decorator types functions, not classes given by name
    remote = actor.options(
        num_cpus=settings.cores_per_worker,
        num_gpus=settings.gpus_per_worker,
        max_concurrency=3,  # its work, its reports, and the answers to them
    )
    return remote.remote(order)


def run_workers(
    count: int,
    begin: Callable[[], Worker],
    work: Callable[[Worker], None],
    is_left: Callable[[], bool],
    on_look: Callable[[], None],
    stopping: threading.Event,
) -> None:
    """Runs `count` workers at a time, each from its own thread, until no work is left.

    A worker that dies, or whose node does, gets a successor on any node with room. The workers are
    stopped with this process; if it is killed, Ray ends them.

    Args:
        count: number of workers.
        begin: starts a worker, which may have to wait for room.
        work: runs all its work; raises Ray's error if the worker dies.
        is_left: returns whether work is left.
        on_look: called every second.
        stopping: set when this process is stopped.

    Raises:
        MedtlError: work is left, and no worker.
    """
    begun: list[Worker] = []

    def one_more() -> Worker:
        begun.append(begin())
        return begun[-1]

    def goes_on() -> bool:
        return not stopping.is_set() and is_left()

    with ThreadPoolExecutor(count) as pool:
        places = [pool.submit(_place, one_more, work, goes_on) for _ in range(count)]
        running = set(places)
        try:
            while running:
                _, running = wait(running, LOOK)
                on_look()
        finally:
            stopping.set()
            for worker in begun:
                ray.kill(worker)
    reasons = dict.fromkeys(filter(None, (place.result() for place in places)))
    for reason in reasons:
        print(f"medtl: a worker ended: {reason}", file=sys.stderr)
    if is_left():
        raise MedtlError(
            "no worker is left; their errors are printed above; the same command goes on"
        )


def _place(
    begin: Callable[[], Worker], work: Callable[[Worker], None], goes_on: Callable[[], bool]
) -> str:
    """Runs one worker after another until no work is left; returns the last one's error."""
    reason = ""
    for _ in range(1 + MOST_SUCCESSORS):
        if not goes_on():
            return ""
        worker = begin()
        try:
            opened = worker.open.remote()
            # there may never be room; then other workers do the work
            while not ray.wait([opened], timeout=LOOK)[0]:
                if not goes_on():
                    return ""
            reason = ray.get(opened)
            if reason:
                return reason
            work(worker)
            return ""
        except RayTaskError as error:
            return _line(error.cause)
        except RayError as error:
            reason = _line(error)
        finally:
            ray.kill(worker)
    return reason


def shipped(dataset: Dataset) -> ray.ObjectRef:
    """Puts the data set into Ray's store, of which each node fetches one copy."""
    pixels = dataset.pixels
    whole = dataclasses.replace(pixels, array=np.asarray(pixels.array))
    return ray.put(dataclasses.replace(dataset, pixels=whole))


def everywhere(data: str) -> str:
    """Returns the absolute path of the data, or the name of an embedded data set."""
    return data if data in EMBEDDED else str(Path(data).absolute())


def enter_node(settings: ClusterSettings, tracking_uri: str, run_id: str) -> None:
    """Sets up a worker's process: threads, GPUs, tracking store; checks the command's run.

    Raises:
        MedtlError: this node's tracking store does not have the run.
    """
    torch.set_num_threads(settings.cores_per_worker)
    if not settings.gpus_per_worker:
        # Ray hides the GPUs of others only from workers that have one
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    mlflow.set_tracking_uri(tracking_uri)
    try:
        MlflowClient().get_run(run_id)
    except MlflowException as error:
        raise MedtlError(
            f"run {run_id} is not to be found at {tracking_uri} ({_line(error)}); nodes of other "
            "machines need a tracking server: set MLFLOW_TRACKING_URI to one"
        ) from error


def named_here(error: Exception) -> str:
    """Returns the message of an error with the name of this node."""
    return f"{os.uname().nodename}: {_line(error)}"


def _knock(address: str) -> None:
    """Raises `OSError` if nothing listens at HOST:PORT; Ray itself would retry for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), WAIT).close()


def _check_room(settings: ClusterSettings) -> None:
    asked = {"CPU": settings.cores_per_worker, "GPU": settings.gpus_per_worker}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(name, 0) >= asked[name] for name in asked) for node in nodes):
        found = {f"{node.get('CPU', 0):g} and {node.get('GPU', 0):g}" for node in nodes}
        raise MedtlError(
            f"no node of the Ray cluster has cores_per_worker={asked['CPU']} and "
            f"gpus_per_worker={asked['GPU']:g}; they have {', '.join(sorted(found))}"
        )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
