"""A tracking store that fails in the midst of the work: a server that is gone, a disk that is full.

MLflow asks a server that does not answer again and again, for four minutes as it is set by itself
(`MLFLOW_HTTP_REQUEST_MAX_RETRIES`, `MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR`): until then the work only
waits. What was logged before stays, and the same command goes on from there.
"""

from __future__ import annotations

import logging
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES
from mlflow.exceptions import MlflowException
from requests.exceptions import RequestException
from sqlalchemy.exc import OperationalError

from medtl.errors import MedtlError
from medtl.keep import cache_root, is_full
from medtl.masking import masked_value, without_secrets

LITTLE = 1 << 20  # bytes; a disk with less free space is full
QUIET = 60.0  # seconds between two lines that say that the server is waited for
AGAIN = "the same command goes on from here"


@contextmanager
def store_watched() -> Iterator[None]:
    """Says in one line that the tracking store was lost.

    Raises:
        MedtlError: a server does not answer any more, or a database cannot be opened or written.
    """
    try:
        yield
    except OperationalError as error:
        # MLflow passes on as it is what keeps it from opening a database
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
    """Says in one line which disk has no room left.

    Raises:
        MedtlError: none is left for an artifact, or for a temporary file.
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
    """From now on in this process MLflow asks once: a server was waited for, and did not return."""
    MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(0)


def _said(error: object) -> tuple[str, str]:
    """Returns the tracking store and the message of an error, both without the password."""
    uri = mlflow.get_tracking_uri()
    return masked_value(uri), without_secrets(" ".join(str(error).split()), uri)[:300]


class _OneLine(logging.Filter):
    """Now and then says that a server is waited for, where urllib3 would at every repetition."""

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


# requests of all threads, also when a run has ended
logging.getLogger("urllib3.connectionpool").addFilter(_OneLine())
