"""Repair of a moved project folder: MLflow's database has absolute paths of artifacts.

`python -m medtl.tracking.relocate OLD NEW`, run in the folder of the database, updates them.
"""

from __future__ import annotations

import contextlib
import shlex
import sqlite3
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

from mlflow.entities import Run

from medtl.errors import MedtlError
from medtl.tracking.store import store_file

COMMAND = ("python", "-m", "medtl.tracking.relocate")
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
"""Tables and columns of MLflow's database that contain paths."""


def check_in_place(run: Run) -> None:
    """Refuses to write artifacts of a run to the former path of a moved project folder.

    Raises:
        MedtlError: the folder was moved after the experiment was created; the message has the
            command that updates the paths.
    """
    database = store_file()
    place = _local(run.info.artifact_uri)
    if database is None or place is None:
        return
    experiment = place.parent.parent  # contains RUN/artifacts
    if experiment.exists():
        return
    for old in experiment.parents:
        if (database.parent / experiment.relative_to(old)).is_dir():
            command = shlex.join([*COMMAND, str(old), str(database.parent)])
            raise MedtlError(
                f"this project folder was moved from {old} to {database.parent}, and {database} "
                f"still has the old path; run there: {command}"
            )


def renamed(database: Path, old: str, new: str) -> int:
    """Replaces the folder `old` by `new` in all paths of a database; returns their number.

    The replacement is atomic.
    """
    count = 0
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for table, column in PLACES:
            for before, after in ((old, new), (f"file://{old}", f"file://{new}")):
                cursor = connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (after, len(before) + 1, before, len(before) + 1, f"{before}/"),
                )
                count += cursor.rowcount
    return count


def _local(uri: str) -> Path | None:
    """Returns the path of a local URI; None for a remote one."""
    parsed = urlparse(uri)
    return Path(unquote(parsed.path)) if parsed.scheme in ("", "file") else None


def main() -> None:
    """Updates the folder given on the command line in the tracking store."""
    database = store_file()
    if len(sys.argv) != 3 or database is None or not database.is_file():
        sys.exit("usage, beside mlflow.db: python -m medtl.tracking.relocate OLD NEW")
    old, new = (argument.rstrip("/") for argument in sys.argv[1:])
    print(f"{renamed(database, old, new)} paths in {database} are now in {new}")


if __name__ == "__main__":
    main()
