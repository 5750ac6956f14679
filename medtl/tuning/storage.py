"""Study storage, and coordination of the workers on one study.

Many workers agree by locks of the database that a process loses when it dies: only one asks for a
trial at a time, so that none is begun too many, and only one command leads, which prepares the
search and concludes it. A worker gives a sign of life while it trains; who gives none is dead, and
its trial is run again.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from medtl.errors import MedtlError, masked_value, without_secrets

HEARTBEAT = 10  # seconds between a worker's signs of life
GRACE = 60  # seconds without one after which a worker is dead
WORKER = "medtl.worker"  # trial attribute: the worker that began it
OVER = "medtl.over"  # study attribute: no further trial is to be begun
DRIVER = "postgresql+psycopg"
WAIT = 10  # seconds in which a server must have answered
LOST = (SQLAlchemyError, StorageInternalError)  # what is raised where a database does not answer


class SingleWorker:
    """One process at a time works on a study: there is nothing to agree on."""

    @contextmanager
    def asking(self, study: optuna.Study) -> Iterator[None]:
        """Alone with the study while a trial is asked for."""
        yield

    def begin(self, trial: optuna.Trial) -> None:
        """Signs a trial that was asked for."""

    @contextmanager
    def working(self, trial: optuna.Trial) -> Iterator[None]:
        """Gives signs of life while the trial is run."""
        yield

    def dead(self, study: optuna.Study) -> list[FrozenTrial]:
        """Trials whose worker is found dead, failed herewith; to be called while asking."""
        return []

    def dead_with(self, study: optuna.Study, worker: str) -> list[FrozenTrial]:
        """Trials of a worker that is known to be dead, failed herewith; as `dead`."""
        return []

    def end(self, study: optuna.Study) -> None:
        """No further trial is to be begun by anyone."""

    def ended(self, study: optuna.Study) -> bool:
        """Returns whether a stop was requested."""
        return False

    def reopen(self, study: optuna.Study) -> None:
        """Trials may be begun again."""

    @contextmanager
    def lead(self, study: optuna.Study) -> Iterator[Callable[[], bool]]:
        """Yields what tells whether this command leads the search, and takes the lead if free."""
        yield lambda: True


class PostgresCoordinator(SingleWorker):
    """Many processes, on any machines, work on a study in PostgreSQL."""

    def __init__(self, url: str, worker: str, grace: int = GRACE) -> None:
        """Opens the database; `worker` is the name of this process among all.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the server does not answer, or not to this user.
        """
        self._worker = worker
        self._stale: list[FrozenTrial] = []
        self._locks = sqlalchemy.create_engine(
            url,
            poolclass=sqlalchemy.NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={"connect_timeout": WAIT},
        )
        # two processes that make the tables of a new database at once would be in each other's way
        with self._locked("tables"), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.storage = RDBStorage(
                url.replace("{", "{{").replace("}", "}}"),  # Optuna takes braces for its own
                engine_kwargs={"pool_pre_ping": True, "connect_args": {"connect_timeout": WAIT}},
                heartbeat_interval=HEARTBEAT,
                grace_period=grace,
                heartbeat_stale_trial_callback=lambda study, trial: self._stale.append(trial),
            )

    @contextmanager
    def asking(self, study: optuna.Study) -> Iterator[None]:
        with self._locked(f"ask {study.study_name}"):
            yield

    def begin(self, trial: optuna.Trial) -> None:
        self.storage.record_heartbeat(trial._trial_id)
        trial.set_user_attr(WORKER, self._worker)

    @contextmanager
    def working(self, trial: optuna.Trial) -> Iterator[None]:
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT):
                # what does not get through now may do so the next time
                with contextlib.suppress(*LOST):
                    self.storage.record_heartbeat(trial._trial_id)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def dead(self, study: optuna.Study) -> list[FrozenTrial]:
        """Adds trials that nobody signed: who asked for one died before he let go of the lock."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)
        found, self._stale = self._stale, []
        return found + self._failed(study, lambda trial: WORKER not in trial.user_attrs)

    def dead_with(self, study: optuna.Study, worker: str) -> list[FrozenTrial]:
        return self._failed(study, lambda trial: trial.user_attrs.get(WORKER) == worker)

    def end(self, study: optuna.Study) -> None:
        study.set_user_attr(OVER, True)

    def ended(self, study: optuna.Study) -> bool:
        return bool(study.user_attrs.get(OVER))

    def reopen(self, study: optuna.Study) -> None:
        study.set_user_attr(OVER, False)

    @contextmanager
    def lead(self, study: optuna.Study) -> Iterator[Callable[[], bool]]:
        with contextlib.closing(_Lead(self._locks, _key(f"lead {study.study_name}"))) as lead:
            yield lead.taken

    def _failed(
        self, study: optuna.Study, meant: Callable[[FrozenTrial], bool]
    ) -> list[FrozenTrial]:
        running = study.get_trials(states=(TrialState.RUNNING,))
        return [
            study.tell(trial.number, state=TrialState.FAIL) for trial in running if meant(trial)
        ]

    @contextmanager
    def _locked(self, what: str) -> Iterator[None]:
        """Alone with a thing in the database; the lock goes with the connection."""
        with self._locks.connect() as connection:
            _notice_loss(connection)
            connection.execute(sqlalchemy.text(f"SELECT pg_advisory_lock({_key(what)})"))
            yield


class _Lead:
    """A lock that is held as long as this process lives and is connected."""

    def __init__(self, engine: sqlalchemy.Engine, key: int) -> None:
        self._engine = engine
        self._take = sqlalchemy.text(f"SELECT pg_try_advisory_lock({key})")
        self._connection: sqlalchemy.Connection | None = None

    def taken(self) -> bool:
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
                _notice_loss(self._connection)
            return bool(self._connection.execute(self._take).scalar())
        except SQLAlchemyError:
            # what a lost connection held is free, for this process as for others
            self.close()
            return False

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._connection.close()
            self._connection = None


@dataclass(frozen=True)
class Store:
    """An open Optuna storage, and how those who work on its studies agree."""

    url: str
    storage: BaseStorage
    coordinator: SingleWorker


def is_shared(url: str) -> bool:
    """Returns whether many processes may work on a study that lies at this URL."""
    return url.startswith(("postgresql:", "postgresql+", "postgres:"))


def open_store(url: str, worker: str = "") -> Store:
    """Opens the storage at an Optuna storage URL, and makes its tables where there are none.

    A `postgresql://` URL is opened by the driver that is installed with this project. `worker` is
    a name of this process that no other has; empty draws one.

    Raises:
        MedtlError: the storage does not open.
    """
    with opening(url):
        if not is_shared(url):
            return Store(url, optuna.storages.get_storage(url), SingleWorker())
        shared = PostgresCoordinator(with_driver(url), worker or uuid.uuid4().hex)
        return Store(url, shared.storage, shared)


def with_driver(url: str) -> str:
    """Returns a PostgreSQL URL that names no driver, with the driver of this project."""
    scheme, colon, rest = url.partition(":")
    return f"{DRIVER}{colon}{rest}" if scheme in ("postgresql", "postgres") else url


@contextmanager
def opening(url: str) -> Iterator[None]:
    """Says in one line, without a password, what keeps a storage from opening.

    Raises:
        MedtlError: it does not open.
    """
    try:
        yield
    except MedtlError:
        raise
    except (ImportError, OSError, ValueError, *LOST) as error:
        raise MedtlError(
            f"storage {masked_value(url)} does not open: {_reason(error, url)}"
        ) from error


@contextmanager
def connected(url: str) -> Iterator[None]:
    """Says in one line, without a password, that a storage is no longer there.

    Raises:
        MedtlError: it was lost.
    """
    try:
        yield
    except LOST as error:
        raise MedtlError(
            f"storage {masked_value(url)} was lost: {_reason(error, url)}; the same command goes "
            "on from here"
        ) from error


def _reason(error: Exception, url: str) -> str:
    """Returns the driver's message, without SQLAlchemy's additions and the URL's secrets."""
    if isinstance(error, StorageInternalError):
        error = error.__cause__
    said = getattr(error, "orig", None) or error
    return without_secrets(" ".join(str(said).split()), url)[:500] or type(error).__name__


def _notice_loss(connection: sqlalchemy.Connection) -> None:
    """Lets the server find out within a minute that this machine is gone, and free its locks."""
    for name, value in (("idle", 20), ("interval", 10), ("count", 3)):
        connection.execute(sqlalchemy.text(f"SET tcp_keepalives_{name} = {value}"))


def _key(what: str) -> int:
    """Returns a lock's number, of 63 bits."""
    digest = hashlib.sha256(f"medtl {what}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
