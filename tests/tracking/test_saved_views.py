"""Saved views of MLflow's run list."""

from __future__ import annotations

import json

import mlflow
from mlflow.tracking import MlflowClient

from medtl.tracking.addresses import mark_experiment, view_address
from medtl.tracking.runs import nested_run
from medtl.tracking.saved_views import save_trials_view


def test_the_view_of_a_study_lists_its_trials_the_best_first():
    client, study = MlflowClient(), "it's a study @ home"
    with mlflow.start_run() as parent:
        for number, score in enumerate((0.7, 0.9, 0.8)):
            tags = {"medtl.kind": "trial", "medtl.study": study, "medtl.cutoff": "fc"}
            with nested_run(f"trial {number}", tags, {}):
                mlflow.log_metric("best_valid_auroc", score)
        with nested_run("other", {"medtl.kind": "trial", "medtl.study": "other"}, {}):
            pass
    experiment = parent.info.experiment_id
    key = save_trials_view(experiment, study, several=True)
    view = json.loads(client.get_experiment(experiment).tags[f"mlflow.sharedViewState.{key}"])
    state = json.loads(view["state"])
    assert view.items() >= state.items()  # releases without named views read these
    assert view["name"] == f"trials of {study}"
    assert {
        "metrics.`best_valid_auroc`",
        "tags.`medtl.cutoff`",
        "tags.`medtl.architecture`",
    } <= set(state["selectedColumns"])
    order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
    found = client.search_runs([experiment], state["searchFilter"], order_by=[order])
    assert [each.info.run_name for each in found] == ["trial 1", "trial 2", "trial 0"]
    assert view_address(experiment, key).startswith(
        f"http://127.0.0.1:5000/#/experiments/{experiment}/runs?viewStateShareKey={key}&"
    )


def test_a_view_that_a_user_changed_stays():
    client = MlflowClient()
    mark_experiment("0")
    tags = client.get_experiment("0").tags
    assert json.loads(tags["mlflow.sharedViewState.medtl-runs"])["name"]
    assert tags["mlflow.experiment.primaryMetric.name"] == "best_valid_auroc"
    client.set_experiment_tag("0", "mlflow.sharedViewState.medtl-runs", "mine")
    mark_experiment("0")
    assert client.get_experiment("0").tags["mlflow.sharedViewState.medtl-runs"] == "mine"
