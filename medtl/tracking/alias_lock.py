"""Lock: one process at a time moves an alias.

MLflow cannot set an alias only where it still is what it was. So whoever moves one has the turn
while he looks again and moves it: on one machine by a lock file, among machines that share a
tracking server by a claim that each writes on the registered model before he looks.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

import mlflow
from mlflow.tracking import MlflowClient

from medtl.cache import content_key
from medtl.errors import MedtlError
from medtl.tracking.run_ownership import owner
from medtl.tracking.runs import store_folder

LOCK_FILE = "aliases.lock"  # an empty SQLite file: it locks on every system, and a kill frees it
PATIENCE = 120.0  # seconds; a turn takes less than one
CLAIM = "medtl.turn."  # begins a tag on a registered model: who has, or wants, the turn
RENEWED = 10.0  # seconds after which who still waits writes another
DEAD = 60.0  # seconds after which a claim that still stands is that of a process that was killed
LOOK = 0.2  # seconds between two looks


@contextmanager
def alias_lock(model_name: str, patience: float = PATIENCE) -> Iterator[None]:
    """Waits for the turn at a registered model, and has it until the block ends.

    With an SQLite store the lock file lies beside it, and holds for all who use it. With a
    tracking server it lies in the folder of all that is kept, and holds for this machine; a claim
    on the model then holds for all.

    Raises:
        MedtlError: another process has not ended its turn in `patience` seconds.
    """
    folder = store_folder()
    served = mlflow.get_tracking_uri().partition(":")[0] != "sqlite"
    file = folder / (
        f"{content_key(mlflow.get_tracking_uri())}-{LOCK_FILE}" if served else LOCK_FILE
    )
    with closing(sqlite3.connect(file, timeout=patience, isolation_level=None)) as lock:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise MedtlError(
                f"the aliases of the registry cannot be moved: {file} has been locked by another "
                f"process for {patience:.0f} s ({error}); end that process, then run promote"
            ) from error
        if served:
            with _claimed(model_name, patience):
                yield
        else:
            yield


@contextmanager
def _claimed(model_name: str, patience: float) -> Iterator[None]:
    """Alone among machines: each writes its claim first, and then looks for those of others.

    Of two, at least one sees the other's, whatever the order. Who sees one that sorts before his
    own takes his back and writes another; who sees only others waits for them to do so. A claim
    never stands for long, so one that does is of a dead process.
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
                time.sleep(LOOK)
        finally:
            client.delete_registered_model_tag(model_name, claim)
        if time.monotonic() - began > patience:
            raise MedtlError(
                f"the aliases of {model_name} cannot be moved: {tags[min(alive)]} has claimed the "
                f"turn for {patience:.0f} s; end that process, then run promote"
            )
        time.sleep(LOOK)
