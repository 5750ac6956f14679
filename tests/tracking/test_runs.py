from __future__ import annotations

import mlflow
from mlflow.tracking import MlflowClient

from medtl.tracking.runs import ERROR_TAG, SUCCESSOR_TAG, close_cut_off_run


def started(parent: str | None = None) -> str:
    """A run as a killed process leaves it."""
    tags = {"mlflow.parentRunId": parent} if parent else {}
    return MlflowClient().create_run("0", tags=tags).info.run_id


def test_a_run_that_was_cut_off_is_closed_with_what_is_nested_in_it():
    client = MlflowClient()
    parent, successor, other = started(), started(), started()
    nested, finished = started(parent), started(parent)
    client.set_terminated(finished, "FINISHED")
    close_cut_off_run(parent, successor)
    for run_id in (parent, nested):
        run = mlflow.get_run(run_id)
        assert run.info.status == "KILLED"
        assert run.data.tags[SUCCESSOR_TAG] == successor
        assert successor in run.data.tags[ERROR_TAG]
    assert mlflow.get_run(finished).info.status == "FINISHED"
    assert all(mlflow.get_run(each).info.status == "RUNNING" for each in (successor, other))


def test_a_run_does_not_close_itself():
    run_id = started()
    close_cut_off_run(run_id, run_id)
    close_cut_off_run(None, run_id)
    assert mlflow.get_run(run_id).info.status == "RUNNING"
