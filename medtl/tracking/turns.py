"""Turns: of all processes that share a tracking store, one at a time moves its aliases.

MLflow cannot set an alias only where it still is what it was. So whoever moves one holds the lock
of the store while he looks again and moves it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import mlflow

from medtl.errors import MedtlError
from medtl.keep import key_of
from medtl.tracking.runs import store_folder

LOCK_FILE = "aliases.lock"  # an empty SQLite file: it locks on every system, and a kill frees it
PATIENCE = 120.0  # seconds; a turn takes less than one


@contextmanager
def turn(patience: float = PATIENCE) -> Iterator[None]:
    """Waits for the turn at the tracking store, and has it until the block ends.

    With an SQLite store the lock lies beside it, and holds for all who use it. With a tracking
    server it lies in the folder of all that is kept, and holds for this machine; between machines
    only the look just before the alias is moved is left.

    Raises:
        MedtlError: another process has not ended its turn in `patience` seconds.
    """
    folder = store_folder()
    served = mlflow.get_tracking_uri().partition(":")[0] != "sqlite"
    file = folder / (f"{key_of(mlflow.get_tracking_uri())}-{LOCK_FILE}" if served else LOCK_FILE)
    with closing(sqlite3.connect(file, timeout=patience, isolation_level=None)) as lock:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise MedtlError(
                f"the aliases of the registry cannot be moved: {file} has been locked by another "
                f"process for {patience:.0f} s ({error}); end that process, then run promote"
            ) from error
        yield
