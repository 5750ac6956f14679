"""Tracking store in a database: a fast connection check, and repair of SQLite tables.

MLflow retries for minutes to open a missing database. It creates the tables in dozens of steps, and
cannot open a file that a killed process left between two of them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlparse

import mlflow
import sqlalchemy
from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine_with_retry

from medtl.errors import MedtlError
from medtl.keep import unfinished
from medtl.masking import masked_value, without_secrets

CONNECT_SECONDS = 5  # timeout of a connection to a database server
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def store_file() -> Path | None:
    """Returns the file of an SQLite tracking store, None where the store is another one."""
    uri = urlparse(mlflow.get_tracking_uri())
    return _file(uri.path) if uri.scheme == "sqlite" else None


def check_opens(uri: str, what: str, variable: str) -> None:
    """Checks once that a database opens; other stores are not checked.

    Args:
        uri: MLflow's URI of the store.
        what: description of the store, for the message.
        variable: environment variable that sets the store.

    Raises:
        MedtlError: the database does not open.
    """
    if not uri.startswith(DATABASES):
        return
    try:
        url = sqlalchemy.make_url(uri)
        if url.get_backend_name() == "sqlite":
            _check_place(_file(urlparse(uri).path))
            return
        timeout = {} if url.get_backend_name() == "mssql" else {"connect_timeout": CONNECT_SECONDS}
        engine = sqlalchemy.create_engine(url, connect_args=timeout)
        engine.connect().close()
        engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, OSError, ImportError, ValueError) as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise MedtlError(
            f"{what} {masked_value(uri)} does not open ({without_secrets(reason, uri)[:300]}); "
            f"set {variable}"
        ) from error


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


def _file(path: str) -> Path:
    """Returns the file of an SQLite URL's path; an empty path is MLflow's default."""
    return Path(path.removeprefix("/") or "mlflow.db").absolute()


def _check_place(file: Path) -> None:
    """Raises `OSError` if a file is not writable and cannot be created."""
    place = file
    while not place.exists():
        place = place.parent
    if place != file and not place.is_dir():
        raise NotADirectoryError(f"{place} is no folder")
    if not os.access(place, os.W_OK):
        raise PermissionError(f"{place} cannot be written")
