"""Tracking store: connection, login, permissions, failures during the work."""

from __future__ import annotations

import logging
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlparse, urlsplit

import mlflow
import sqlalchemy
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES
from mlflow.exceptions import MlflowException
from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine_with_retry
from mlflow.tracking import MlflowClient
from mlflow.tracking.fluent import _get_experiment_id
from mlflow.utils.credentials import get_default_host_creds, read_mlflow_creds
from mlflow.utils.rest_utils import http_request
from requests.exceptions import RequestException
from sqlalchemy.exc import OperationalError

from medtl.cache import cache_root, is_full, unfinished
from medtl.errors import MedtlError, masked_value, without_secrets

# MLflow repeats requests to a server without response for four minutes by default
# (`MLFLOW_HTTP_REQUEST_MAX_RETRIES`, `MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR`). Logged values stay, and
# the same command resumes from them.


LITTLE = 1 << 20  # bytes; a disk with less free space is full
QUIET = 60.0  # seconds between two lines on a server without response
AGAIN = "the same command goes on from here"


@contextmanager
def translate_store_errors() -> Iterator[None]:
    """Translates errors of a lost tracking store into one line.

    Raises:
        MedtlError: a server does not respond, or a database cannot be opened or written.
    """
    try:
        yield
    except OperationalError as error:
        # MLflow passes on the error of a database that does not open
        place, reason = _said(error.orig)
        raise MedtlError(
            f"the tracking store {place} does not open ({reason}); where a "
            "process was killed while it made that file, remove the file"
        ) from error
    except (MlflowException, RequestException) as error:
        if not is_lost(error):
            raise
        cause = error.__cause__ or error.__context__ or error
        place, reason = _said(getattr(cause, "orig", cause))
        raise MedtlError(
            f"the tracking store {place} was lost ({reason}); when it is there again, {AGAIN}"
        ) from error


@contextmanager
def room_watched() -> Iterator[None]:
    """Translates errors of a full disk into one line that names the disk.

    Raises:
        MedtlError: no room for an artifact, or for a temporary file.
    """
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        place = error.filename2 or error.filename or _without_room()
        raise MedtlError(
            f"cannot write to {place} ({error.strerror}); free some disk, then {AGAIN}"
        ) from error


def _without_room() -> str:
    """Returns the places that a run writes to on a full disk; all of them if none is full."""
    artifacts = mlflow.get_artifact_uri().removeprefix("file://")
    places = {
        f"the artifacts in {artifacts}": Path(artifacts),
        f"temporary files in {tempfile.gettempdir()} (set TMPDIR)": Path(tempfile.gettempdir()),
        f"the cache in {cache_root()} (set MEDTL_CACHE)": cache_root(),
    }
    full = [words for words, place in places.items() if _room(place) < LITTLE]
    return " or ".join(full or places)


def _room(place: Path) -> float:
    """Returns the free bytes on the disk of a folder, which need not exist."""
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return math.inf


def is_lost(error: Exception) -> bool:
    """Returns whether an error of MLflow means a missing or read-only store."""
    if isinstance(error, RequestException):
        return True
    of_server = isinstance(error.__context__, RequestException)
    return of_server or isinstance(error.__cause__, OperationalError)


def ask_only_once() -> None:
    """Disables MLflow's HTTP retries in this process, after a server did not come back."""
    MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(0)


def _said(error: object) -> tuple[str, str]:
    """Returns the tracking store and the message of an error, both without the password."""
    uri = mlflow.get_tracking_uri()
    return masked_value(uri), without_secrets(" ".join(str(error).split()), uri)[:300]


class _OneLine(logging.Filter):
    """Replaces urllib3's warning at every retry by a line per minute."""

    def __init__(self) -> None:
        super().__init__()
        self._said = -QUIET

    def filter(self, record: logging.LogRecord) -> bool:
        if "after connection broken" not in str(record.msg):
            return True
        now = time.monotonic()
        if now - self._said >= QUIET:
            self._said = now
            print("note: the tracking server does not answer; waiting for it", file=sys.stderr)
        return False


# for requests of all threads, also after the end of a run
logging.getLogger("urllib3.connectionpool").addFilter(_OneLine())


# MLflow retries for minutes to open a missing database. It creates the tables in dozens of steps,
# and cannot open a file that a killed process left between two of them.


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
    """Creates the file of a missing SQLite tracking store.

    Of several simultaneous processes the first to finish creates it. Errors are left to MLflow.
    """
    file = store_file()
    if file is None or file.exists():
        return
    with suppress(OSError), unfinished(file.parent) as folder:
        made = folder / file.name
        engine = create_sqlalchemy_engine_with_retry(f"sqlite:///{made}")
        _initialize_tables(engine)
        engine.dispose()
        os.link(made, file)  # unlike renaming, never replaces the file of another process


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


def check_login() -> None:
    """Checks that the tracking server responds to this user, or that the database opens.

    Raises:
        MedtlError: no response, or no access.
    """
    uri = mlflow.get_tracking_uri()
    if not uri.startswith("http"):
        check_opens(uri, "the tracking store", "MLFLOW_TRACKING_URI")
        return
    try:
        MlflowClient().search_experiments(max_results=1)
    except MlflowException as error:
        shown = masked_value(uri)
        reason = without_secrets(" ".join(str(error).split()), uri)
        if "Invalid Host header" in reason:
            raise MedtlError(
                f"the tracking server does not take {shown} for its address; start it with "
                f"--allowed-hosts {urlsplit(uri).netloc.rpartition('@')[2]}, or set "
                "MLFLOW_TRACKING_URI"
            ) from error
        if "code 401" in reason or "code 403" in reason:
            raise MedtlError(
                f"the tracking server {shown} does not let this user in; set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            ) from error
        ask_only_once()
        raise MedtlError(
            f"the tracking server {shown} does not answer: {reason[:300]}; set MLFLOW_TRACKING_URI"
        ) from error


def current_run() -> mlflow.ActiveRun:
    """Returns the active run.

    Raises:
        RuntimeError: there is none.
    """
    run = mlflow.active_run()
    if run is None:
        raise RuntimeError("no active run")
    return run


# The basic-auth app of MLflow gives each user a permission for each experiment and registered
# model: READ, EDIT (to create runs and versions), MANAGE (to delete them, too).


ASKED_AT = "/api/3.0/mlflow/users/permissions/get"
ENOUGH = ("EDIT", "MANAGE")
OF_REGISTRY = ("/registered-models/", "/model-versions/")


def check_may_change(model_name: str) -> None:
    """Checks at the start that this user may change a registered model at the end.

    A new name is allowed to all users. A server without the basic-auth app of MLflow has no such
    request, and may still refuse at the end.

    Raises:
        MedtlError: this user may not change the model.
    """
    uri, user = mlflow.get_registry_uri(), read_mlflow_creds().username
    if user is None or not uri.startswith("http"):
        return
    asked = {"username": user, "resource_type": "registered_model", "resource_id": model_name}
    answer = http_request(get_default_host_creds(uri), ASKED_AT, "GET", params=asked)
    permission = answer.json().get("permission") if answer.ok else None
    if permission is None or permission in ENOUGH or _is_free(model_name):
        return
    raise MedtlError(
        f"{user} may not change the registered model {model_name} at {masked_value(uri)} "
        f"(permission {permission}): ask who made it, or the server's admin, for EDIT, or give "
        "another name"
    )


@contextmanager
def permission_watched() -> Iterator[None]:
    """Translates a denied permission into one line.

    Raises:
        MedtlError: the tracking server has denied a request.
    """
    try:
        yield
    except MlflowException as error:
        if not is_refused(error):
            raise
        of_registry = any(part in str(error) for part in OF_REGISTRY)
        what = "change this registered model" if of_registry else f"write in {_experiment()}"
        remedy = "" if of_registry else ", or choose another by MLFLOW_EXPERIMENT_NAME"
        raise MedtlError(
            f"the tracking server {masked_value(mlflow.get_tracking_uri())} does not let "
            f"{read_mlflow_creds().username} {what}: ask who made it, or the server's admin, for "
            f"EDIT (MANAGE to delete){remedy}"
        ) from error


def is_refused(error: MlflowException) -> bool:
    """Returns whether an error is a denied permission."""
    return error.error_code == "PERMISSION_DENIED" or "error code 403" in str(error)


def _is_free(model_name: str) -> bool:
    try:
        MlflowClient().get_registered_model(model_name)
    except MlflowException as error:
        return error.error_code == "RESOURCE_DOES_NOT_EXIST"
    return False


def _experiment() -> str:
    """Returns the name of the experiment of new runs, or its number if it cannot be read."""
    number = _get_experiment_id() or "0"
    with suppress(MlflowException):
        return f"experiment {MlflowClient().get_experiment(number).name}"
    return f"experiment number {number}"
