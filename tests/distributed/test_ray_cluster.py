"""Searches and studies on a real Ray cluster of two nodes, one of which is stopped."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import optuna
import pandas as pd
import psutil
import pytest
from mlflow.tracking import MlflowClient

from medtl.commands.compare import compare
from medtl.commands.tune import tune
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.errors import MedtlError, ParameterError
from medtl.settings.comparison import CompareSettings
from medtl.settings.search import TuneSettings
from medtl.tracking.runs import embedded_storage
from medtl.tuning import study as studies
from medtl.tuning.storage import open_store

pytest.importorskip("ray", reason='Ray is not installed: pip install "medtl[ray]"')

STORE = 80 * 2**20  # bytes of a node's object store, about the least that Ray takes
QUICK = {
    "architecture": "small_resnet",
    "weights": "random",
    "image_size": 32,
    "augment": "none",
}
SEARCH = {"cutoffs": "layer3,head", "optimizers": "adam", "pruner": "none", "study": "far"}


@pytest.fixture
def clinic(tmp_path) -> str:
    """The CSV of 36 phantom patients at 32 px, about 100 images."""
    folder = tmp_path / "clinic"
    folder.mkdir()
    write_chest_phantoms(folder, seed=3, patients=36, image_size=32)
    return str(folder / "labels.csv")


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Iterator:
    """A cluster of one node with one core."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        # or its workers wait for all other tests
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        cache = str(tmp_path_factory.mktemp("first"))
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 1,
                "object_store_memory": STORE,
                "include_dashboard": False,
                "env_vars": {"MEDTL_CACHE": cache},
            },
        )
        yield cluster
        cluster.shutdown()


@pytest.fixture
def second(head, tmp_path):
    """A second node, with a cache of its own in `second`."""
    node = head.add_node(
        num_cpus=1, object_store_memory=STORE, env_vars={"MEDTL_CACHE": str(tmp_path / "second")}
    )
    yield node
    if node in head.worker_nodes:
        head.remove_node(node)


def runs(kind: str) -> pd.DataFrame:
    return mlflow.search_runs(
        search_all_experiments=True, filter_string=f"tags.`medtl.kind` = '{kind}'"
    )


def is_on(node, process: str) -> bool:
    """Whether the process that a run names is a worker of this node."""
    raylet = node.all_processes["raylet"][0].process.pid
    try:
        return psutil.Process(int(process.split()[1])).ppid() == raylet
    except psutil.NoSuchProcess:
        return False


def stop_when_it_works(head, node, data: Path) -> None:
    """Hides the data when the command has read it, until the node is gone in its first trial."""
    while runs("tune").get("tags.medtl.study") is None:
        time.sleep(0.02)
    hidden = data.rename(data.with_name("hidden"))
    while True:
        time.sleep(0.02)
        trials = runs("trial")
        if "metrics.valid_auroc" not in trials:
            continue
        # the study knows the run of a trial that has told of an epoch
        for process in trials[trials["metrics.valid_auroc"].notna()]["tags.mlflow.medtl.process"]:
            if is_on(node, process):
                head.remove_node(node, allow_graceful=False)
                hidden.rename(data)
                return


@pytest.mark.slow
def test_a_node_with_a_cache_of_its_own_and_no_data_is_stopped_and_no_trial_is_lost(
    clinic, head, second, tmp_path
):
    thread = threading.Thread(
        target=stop_when_it_works, args=(head, second, Path(clinic).parent), daemon=True
    )
    thread.start()
    # a trial takes long enough to be stopped in
    asked = {"data": clinic, **QUICK, **SEARCH, "epochs": 20, "patience": 20, "trials": 4}
    on_ray = {"executor": "ray", "workers": 2, "ray_address": head.address, "ship": "store"}
    tune(TuneSettings(**asked, **on_ray))
    thread.join(timeout=0)
    assert not thread.is_alive()
    assert not (tmp_path / "second" / "pixels").exists()
    (parent,) = runs("tune").to_dict("records")
    trials = runs("trial").set_index("run_id")
    assert parent["status"] == "FINISHED"
    assert set(trials["tags.mlflow.parentRunId"]) == {parent["run_id"]}
    assert sorted(trials["status"]) == ["FINISHED"] * 4 + ["KILLED"]
    (cut_off,) = trials[trials["status"] == "KILLED"].to_dict("records")
    again = trials.loc[cut_off["tags.medtl.successor"]]
    for name in ("cutoff", "optimizer", "lr"):
        assert again[f"params.{name}"] == cut_off[f"params.{name}"]
    study = optuna.load_study(study_name="far", storage=open_store(embedded_storage()).storage)
    assert len(studies.completed(study)) == 4
    assert all(trial.intermediate_values for trial in studies.completed(study))
    assert len(MlflowClient().search_model_versions("name='medtl-clinic'")) == 1


@pytest.mark.slow
def test_a_study_runs_its_cells_on_two_nodes_and_shows_the_one_that_fails(
    clinic, head, second, capsys
):
    settings = CompareSettings(
        data=clinic,
        **{**QUICK, "architecture": "small_resnet,squeezenet1_1"},
        epochs=1,
        cutoffs="layer3,head",  # the second network has no layer3
        rates="0.0001,0.01",
        seeds="0,1",
        executor="ray",
        workers=2,
        ray_address=head.address,
    )
    compare(settings)
    assert "6 of 8 cells" in capsys.readouterr().out
    cells = runs("cell")
    assert sorted(cells["status"]) == ["FAILED"] * 2 + ["FINISHED"] * 6
    assert set(cells["tags.mlflow.parentRunId"]) == set(runs("compare")["run_id"])
    assert len(set(cells["tags.mlflow.medtl.process"])) == 2
    done = cells[cells["status"] == "FINISHED"]
    arms = done.groupby(["params.architecture", "params.cutoff"])
    assert (arms["params.lr"].nunique() == 1).all()
    assert (arms["params.rates"].count() == 1).all(), "one seed chooses, the other has its rate"
    assert set(done.dropna(subset="params.rates")["params.seed"]) == {"0"}
    compare(dataclasses.replace(settings, executor="local", workers=1, ray_address=""))
    assert "6 of them were known" in capsys.readouterr().out


def test_what_the_cluster_does_not_have_is_refused_in_one_line(clinic, head):
    asked = {"data": clinic, **QUICK, "executor": "ray", "ray_address": head.address}
    with pytest.raises(MedtlError, match=r"no node .* gpus_per_worker=1; they have 1 and 0"):
        tune(TuneSettings(**asked, gpus_per_worker=1))
    with pytest.raises(MedtlError, match=r"Ray at 127\.0\.0\.1:1 does not answer: .*refused"):
        tune(TuneSettings(**{**asked, "ray_address": "127.0.0.1:1"}))
    with pytest.raises(ParameterError, match="only with executor=ray"):
        TuneSettings(ray_address="auto")
    with pytest.raises(ParameterError, match="on a machine of the cluster"):
        TuneSettings(executor="ray", ray_address="ray://head:10001")
    with pytest.raises(ParameterError, match="executor=ray"):
        CompareSettings(workers=2)


def test_where_ray_is_not_installed_the_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not there
    with pytest.raises(ParameterError, match=r'pip install "medtl\[ray\]"'):
        TuneSettings(executor="ray")
