"""A study as the entry point runs it, on small phantoms: a report, a resume, a failed cell."""

from __future__ import annotations

import dataclasses

import mlflow
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from medtl.errors import MedtlError
from medtl.jobs.bench import Bench
from medtl.jobs.compare import compare
from medtl.search.studies import plan_of
from medtl.settings import CompareSettings
from medtl.tracking.owners import OWNER_TAG, owner

TINY = {"architecture": "shufflenet_v2_x0_5", "weights": "random", "image_size": 64, "epochs": 1}


def runs(kind: str) -> pd.DataFrame:
    return mlflow.search_runs(
        search_all_experiments=True, filter_string=f"tags.`medtl.kind` = '{kind}'"
    )


def artifact(run_id: str, place: str) -> str:
    return mlflow.artifacts.load_text(f"runs:/{run_id}/{place}")


def table_of(run_id: str) -> pd.DataFrame:
    path = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/report/cells.csv")
    return pd.read_csv(path)


def cells_of(run_id: str) -> pd.DataFrame:
    table = table_of(run_id)
    return table[table["state"] != "baseline"]


def test_a_study_leaves_a_report_and_goes_on_where_it_was_stopped(
    small_phantoms, capsys, monkeypatch
):
    settings = CompareSettings(
        data=str(small_phantoms), **TINY, cutoffs="head,all", transfer="finetune,hybrid",
        fractions="0.5", views=1,
    )  # fmt: skip
    compare(settings)
    first = runs("compare").iloc[0]
    cells = runs("cell")
    assert first["status"] == "FINISHED"
    assert set(cells["tags.mlflow.parentRunId"]) == {first["run_id"]}
    assert sorted(cells["status"]) == ["FAILED", *["FINISHED"] * 3]
    failed = cells[cells["status"] == "FAILED"].iloc[0]
    assert "a later layer where transfer=hybrid" in failed["tags.medtl.error"]
    page = artifact(first["run_id"], "report/report.html")
    for name in cells["tags.mlflow.runName"]:
        assert name in page
    assert "1 of them failed" in first["tags.mlflow.note.content"]
    table = table_of(first["run_id"])
    assert list(table["state"]) == ["complete"] * 3 + ["failed"] + ["baseline"] * 3
    assert list(table["cell"][4:]) == [
        "baseline: frozen features, shufflenet_v2_x0_5",
        "baseline: brightness of 8 x 8 fields",
        "baseline: file properties",
    ]
    assert table["baseline_gain"].notna().tolist() == [True] * 3 + [False] * 4
    assert "above logistic regression on the frozen features" in page
    assert (cells["metrics.test_auroc"].dropna().between(0, 1)).all()

    # as a kill leaves it: the study and a cell still running, another cell done
    client = MlflowClient()
    done, _, cut_off = cells[cells["status"] == "FINISHED"]["run_id"]
    for run_id in (cut_off, first["run_id"]):
        client.set_tag(run_id, OWNER_TAG, f"{owner().partition(' ')[0]} {2**22 + 1} 1000.00")
        client.update_run(run_id, status="RUNNING")
    capsys.readouterr()
    compare(settings)
    assert "2 of them were known" in capsys.readouterr().out
    second = runs("compare").iloc[0]
    assert runs("compare").iloc[1]["status"] == "KILLED"
    assert client.get_run(cut_off).info.status == "KILLED"
    assert client.get_run(cut_off).data.tags["medtl.successor"] == second["run_id"]
    assert client.get_run(done).data.tags["mlflow.parentRunId"] == second["run_id"]
    same = [name for name in table if name not in ("seconds", "run_id")]
    pd.testing.assert_frame_equal(table_of(second["run_id"])[same], table[same])

    before = len(runs("cell"))
    monkeypatch.chdir(small_phantoms.parent)
    compare(dataclasses.replace(settings, data=small_phantoms.name, outside="allow"))
    assert "3 of them were known" in capsys.readouterr().out
    again = runs("cell")
    assert len(again) == before + 1, "only the cell that failed is tried again"
    assert again.iloc[0]["status"] == "FAILED"


def test_a_study_in_which_every_cell_fails_says_why(small_phantoms):
    with pytest.raises(MedtlError, match="every cell of the study failed"):
        compare(CompareSettings(data=str(small_phantoms), **TINY, transfer="hybrid", cutoffs="all"))
    assert runs("compare").iloc[0]["status"] == "FAILED"


def test_a_source_that_shows_what_the_target_is_judged_by_is_refused(small_phantoms):
    settings = CompareSettings(
        study="alzubaidi2020",
        data=str(small_phantoms),
        same=str(small_phantoms),
        architecture="small_resnet",
        image_size=64,
    )
    plan = plan_of(settings)
    cell = next(cell for cell in plan.cells if cell.series == "same domain")
    with pytest.raises(MedtlError, match="cannot be judged by them"):
        Bench(settings, plan).origin(cell)
