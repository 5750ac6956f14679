"""Lock: one process at a time moves an alias.

MLflow has no compare-and-set for aliases, so a process reads and sets one under a lock: on one
machine a lock file, among machines that share a tracking server a claim, which is a tag of the
registered model.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
from filelock import FileLock
from mlflow.tracking import MlflowClient

from medtl.cache import content_key
from medtl.errors import MedtlError
from medtl.tracking.run_ownership import owner
from medtl.tracking.runs import store_folder

LOCK_FILE = "aliases.lock"  # an empty file; the system frees its lock when a process is killed
PATIENCE = 120.0  # seconds; the lock is held for less than one
CLAIM = "medtl.turn."  # prefix of a tag on a registered model: a process holds or wants the lock
RENEWED = 10.0  # seconds after which a waiting process replaces its claim
DEAD = 60.0  # seconds after which a remaining claim is taken for that of a killed process
POLL = 0.2  # seconds between two reads


@contextmanager
def alias_lock(model_name: str, patience: float = PATIENCE) -> Iterator[None]:
    """Locks the aliases of a registered model until the block ends.

    With an SQLite store the lock file lies beside it and covers all of its users. With a tracking
    server it lies in the cache folder and covers this machine; a claim on the model covers all
    machines.

    Raises:
        MedtlError: another process has held the lock for `patience` seconds.
    """
    folder = store_folder()
    served = mlflow.get_tracking_uri().partition(":")[0] != "sqlite"
    file = folder / (
        f"{content_key(mlflow.get_tracking_uri())}-{LOCK_FILE}" if served else LOCK_FILE
    )
    lock = FileLock(file)
    try:
        lock.acquire(timeout=patience)
    except TimeoutError as error:
        raise MedtlError(
            f"the aliases of the registry cannot be moved: {file} has been locked by another "
            f"process for {patience:.0f} s; end that process, then run promote"
        ) from error
    except OSError as error:
        raise MedtlError(
            f"the aliases of the registry cannot be moved: {file} cannot be written "
            f"({error.strerror or error})"
        ) from error
    try:
        if served:
            with _claimed(model_name, patience):
                yield
        else:
            yield
    finally:
        lock.release()


@contextmanager
def _claimed(model_name: str, patience: float) -> Iterator[None]:
    """Locks among machines: each process writes its claim first, then reads those of others.

    Of two processes at least one sees the claim of the other, in any order. A process that sees a
    claim that sorts before its own withdraws its own and writes another; else it waits for the
    others to withdraw. A claim is short-lived, so an old one is of a dead process.
    """
    client = MlflowClient()
    began = time.monotonic()
    first_seen: dict[str, float] = {}
    while True:
        claim = f"{CLAIM}{uuid.uuid4().hex}"
        client.set_registered_model_tag(model_name, claim, owner())
        written = time.monotonic()
        try:
            while time.monotonic() - written < RENEWED:
                tags = client.get_registered_model(model_name).tags
                now = time.monotonic()
                others = {tag for tag in tags if tag.startswith(CLAIM) and tag != claim}
                alive = {tag for tag in others if now - first_seen.setdefault(tag, now) < DEAD}
                if not alive:
                    for dead in others:
                        client.delete_registered_model_tag(model_name, dead)
                    yield
                    return
                if min(alive) < claim or now - began > patience:
                    break
                time.sleep(POLL)
        finally:
            client.delete_registered_model_tag(model_name, claim)
        if time.monotonic() - began > patience:
            raise MedtlError(
                f"the aliases of {model_name} cannot be moved: {tags[min(alive)]} has held the "
                f"lock for {patience:.0f} s; end that process, then run promote"
            )
        time.sleep(POLL)
