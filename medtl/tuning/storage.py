"""Study storage, and coordination of the workers on one study.

Workers use advisory locks of the database, which a process loses when it dies. Only one at a time
takes a trial, so that none is started too many; only one command leads: it prepares the search and
registers its result. A worker records heartbeats while it trains; without them its trial is run
again.
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

HEARTBEAT = 10  # seconds between two heartbeats of a worker
GRACE = 60  # seconds without a heartbeat after which a worker counts as dead
WORKER = "medtl.worker"  # trial attribute: name of its worker
OVER = "medtl.over"  # study attribute: no further trial is started
DRIVER = "postgresql+psycopg"
WAIT = 10  # seconds, timeout of a connection
LOST = (SQLAlchemyError, StorageInternalError)  # errors of a database that does not answer


class SingleWorker:
    """Coordination of a single process, which needs none."""

    @contextmanager
    def asking(self, study: optuna.Study) -> Iterator[None]:
        """Holds the lock of the study while a trial is taken."""
        yield

    def begin(self, trial: optuna.Trial) -> None:
        """Records this worker's name on a new trial."""

    @contextmanager
    def working(self, trial: optuna.Trial) -> Iterator[None]:
        """Records heartbeats while the trial runs."""
        yield

    def dead(self, study: optuna.Study) -> list[FrozenTrial]:
        """Fails and returns the trials of dead workers; to be called within `asking`."""
        return []

    def dead_with(self, study: optuna.Study, worker: str) -> list[FrozenTrial]:
        """Fails and returns the trials of one dead worker; to be called within `asking`."""
        return []

    def end(self, study: optuna.Study) -> None:
        """Stops the search: no worker starts another trial."""

    def ended(self, study: optuna.Study) -> bool:
        """Returns whether the search was stopped."""
        return False

    def reopen(self, study: optuna.Study) -> None:
        """Allows new trials again."""

    @contextmanager
    def lead(self, study: optuna.Study) -> Iterator[Callable[[], bool]]:
        """Yields a function that takes the lead if it is free, and returns whether it has it."""
        yield lambda: True


class PostgresCoordinator(SingleWorker):
    """Coordinates processes on any machines by a PostgreSQL database."""

    def __init__(self, url: str, worker: str, grace: int = GRACE) -> None:
        """Opens the database; `worker` is the unique name of this process.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the server does not answer, or refuses this user.
        """
        self._worker = worker
        self._stale: list[FrozenTrial] = []
        self._locks = sqlalchemy.create_engine(
            url,
            poolclass=sqlalchemy.NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={"connect_timeout": WAIT},
        )
        # two processes must not create the tables of a new database at once
        with self._locked("tables"), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.storage = RDBStorage(
                url.replace("{", "{{").replace("}", "}}"),  # Optuna formats the URL
                engine_kwargs={"pool_pre_ping": True, "connect_args": {"connect_timeout": WAIT}},
                heartbeat_interval=HEARTBEAT,
                grace_period=grace,
                heartbeat_stale_trial_callback=lambda study, trial: self._stale.append(trial),
            )

    @contextmanager
    def asking(self, study: optuna.Study) -> Iterator[None]:
        """Holds the database lock of the study while a trial is taken."""
        with self._locked(f"ask {study.study_name}"):
            yield

    def begin(self, trial: optuna.Trial) -> None:
        """Records a first heartbeat and this worker's name on a new trial."""
        self.storage.record_heartbeat(trial._trial_id)
        trial.set_user_attr(WORKER, self._worker)

    @contextmanager
    def working(self, trial: optuna.Trial) -> Iterator[None]:
        """Records heartbeats from a thread while the trial runs."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT):
                # a failed heartbeat may succeed the next time
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
        """Also fails trials whose worker died before recording its name."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)
        found, self._stale = self._stale, []
        return found + self._failed(study, lambda trial: WORKER not in trial.user_attrs)

    def dead_with(self, study: optuna.Study, worker: str) -> list[FrozenTrial]:
        """Fails and returns the running trials of one worker."""
        return self._failed(study, lambda trial: trial.user_attrs.get(WORKER) == worker)

    def end(self, study: optuna.Study) -> None:
        """Stops the search for all workers."""
        study.set_user_attr(OVER, True)

    def ended(self, study: optuna.Study) -> bool:
        """Returns whether any worker stopped the search."""
        return bool(study.user_attrs.get(OVER))

    def reopen(self, study: optuna.Study) -> None:
        """Allows new trials again for all workers."""
        study.set_user_attr(OVER, False)

    @contextmanager
    def lead(self, study: optuna.Study) -> Iterator[Callable[[], bool]]:
        """Yields a function that takes the leader's lock if it is free."""
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
        """Holds an advisory lock, which the server frees with the connection."""
        with self._locks.connect() as connection:
            _notice_loss(connection)
            connection.execute(sqlalchemy.text(f"SELECT pg_advisory_lock({_key(what)})"))
            yield


class _Lead:
    """Leader's lock, held as long as this process is connected."""

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
            # the server frees the lock of a lost connection
            self.close()
            return False

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._connection.close()
            self._connection = None


@dataclass(frozen=True)
class Store:
    """Open Optuna storage, and the coordinator of its workers."""

    url: str
    storage: BaseStorage
    coordinator: SingleWorker


def is_shared(url: str) -> bool:
    """Returns whether many processes may work on a study that lies at this URL."""
    return url.startswith(("postgresql:", "postgresql+", "postgres:"))


def open_store(url: str, worker: str = "") -> Store:
    """Opens the storage at an Optuna storage URL, and creates missing tables.

    A `postgresql://` URL is opened with the driver of this project. `worker` is a unique name of
    this process; empty draws one.

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
    """Turns errors of opening a storage into one line without a password.

    Raises:
        MedtlError: the storage does not open.
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
    """Turns errors of a lost storage into one line without a password.

    Raises:
        MedtlError: the storage was lost.
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
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    message = getattr(cause, "orig", None) or cause
    return without_secrets(" ".join(str(message).split()), url)[:500] or type(error).__name__


def _notice_loss(connection: sqlalchemy.Connection) -> None:
    """Sets TCP keepalives so that PostgreSQL frees our locks within a minute of a crash."""
    for name, value in (("idle", 20), ("interval", 10), ("count", 3)):
        connection.execute(sqlalchemy.text(f"SET tcp_keepalives_{name} = {value}"))


def _key(what: str) -> int:
    """Returns a lock's number, of 63 bits."""
    digest = hashlib.sha256(f"medtl {what}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
