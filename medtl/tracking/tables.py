"""The tables of an SQLite tracking store: made whole or not at all.

MLflow makes them in dozens of steps, and cannot open a file in which a killed process stopped
between two of them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlparse

import mlflow
from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine_with_retry

from medtl.keep import unfinished


def store_file() -> Path | None:
    """The file of an SQLite tracking store, None where the store is another one."""
    uri = urlparse(mlflow.get_tracking_uri())
    if uri.scheme != "sqlite":
        return None
    return Path(uri.path.removeprefix("/") or "mlflow.db").absolute()


def make_tables() -> None:
    """Makes the file of an SQLite tracking store where there is none yet.

    Of several processes that begin at once the first to be ready makes it. What cannot be made
    here is left to MLflow, which says why.
    """
    file = store_file()
    if file is None or file.exists():
        return
    with suppress(OSError), unfinished(file.parent) as folder:
        made = folder / file.name
        engine = create_sqlalchemy_engine_with_retry(f"sqlite:///{made}")
        _initialize_tables(engine)
        engine.dispose()
        os.link(made, file)  # unlike a renaming it never takes the place of another's file
