"""Runs of trials whose worker died: closed, and linked to the run that does the work again."""

from __future__ import annotations

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from medtl.errors import MedtlError
from medtl.masking import masked_value
from medtl.tracking.owners import OWNER_TAG, PARENT_TAG, is_cut_off, owner
from medtl.tracking.runs import ASKS_TAG, ERROR_TAG, STOPPED, SUCCESSOR_TAG

DIED = "its worker died; the search goes on"


def close_dead(run_id: str | None, parent: str, reason: str = DIED) -> None:
    """Ends what a dead worker left RUNNING: the run of its trial, and what was cut off in `parent`.

    The worker was found dead by the study, wherever it was; of the runs nested in `parent` only
    those are closed whose process is gone. One that was killed as its run began is known by no
    other sign.
    """
    client = MlflowClient()
    nested = client.search_runs(
        [client.get_run(parent).info.experiment_id],
        f"tags.`{PARENT_TAG}` = '{parent}' and attributes.status = 'RUNNING'",
    )
    dead = {run.info.run_id for run in nested if is_cut_off(run)}
    if run_id is not None and client.get_run(run_id).info.status == "RUNNING":
        dead.add(run_id)
    for each in dead:
        client.set_tag(each, ERROR_TAG, reason)
        client.set_tag(each, SUCCESSOR_TAG, parent)
        client.set_terminated(each, "KILLED")


def close_stopped(run_id: str | None, parent: str) -> None:
    """As `close_dead`, of a worker that was stopped with the command that it worked for."""
    close_dead(run_id, parent, STOPPED)


def link_successor(run_id: str | None, successor: str) -> None:
    """Links the run of a trial that was cut off to the run that does its work again."""
    if run_id is not None:
        MlflowClient().set_tag(run_id, SUCCESSOR_TAG, successor)


def has_answered(run_id: str, asking: str) -> bool:
    """Returns whether a run with the settings of the run `asking` has ended well."""
    client = MlflowClient()
    try:
        run = client.get_run(run_id)
    except MlflowException:  # it was deleted
        return False
    asked = client.get_run(asking).data.tags[ASKS_TAG]
    return run.info.status == "FINISHED" and run.data.tags.get(ASKS_TAG) == asked


def was_cut_off(run_id: str) -> bool:
    """Whether a run did not come to its end, and nobody works in it; False where there is none."""
    try:
        run = MlflowClient().get_run(run_id)
    except MlflowException:  # it was deleted
        return False
    return run.info.status in ("KILLED", "FAILED") or is_cut_off(run)


def is_at_work(run_id: str, study: str) -> bool:
    """Whether a process of this host works in the run of a study.

    Of another host it cannot be seen; that one works in an SQLite study here is not likely.

    Raises:
        MedtlError: the run is not where this process tracks its own.
    """
    try:
        run = MlflowClient().get_run(run_id)
    except MlflowException as error:
        raise MedtlError(
            f"study {study} was begun with another tracking store: its run {run_id} is not at "
            f"{masked_value(mlflow.get_tracking_uri())}; set MLFLOW_TRACKING_URI as it was then, "
            "or give another study name"
        ) from error
    here = owner().partition(" ")[0] == run.data.tags.get(OWNER_TAG, "").partition(" ")[0]
    return here and run.info.status == "RUNNING" and not is_cut_off(run)
