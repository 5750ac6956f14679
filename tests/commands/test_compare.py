"""A study as the entry point runs it, on small phantoms: a report, a resume, a failed cell."""

from __future__ import annotations

import dataclasses
import re

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from medtl.commands.compare import compare
from medtl.comparison.runner import SharedResources
from medtl.comparison.study_registry import plan_of
from medtl.data.sources.phantoms.datasets import write_axial_phantoms
from medtl.errors import MedtlError
from medtl.pipeline.pretraining import drawn_down
from medtl.pipeline.setup import training_data
from medtl.settings.comparison import CompareSettings
from medtl.tracking.run_ownership import OWNER_TAG, owner

TINY = {"architecture": "shufflenet_v2_x0_5", "weights": "random", "image_size": 64, "epochs": 1}


def runs(kind: str) -> pd.DataFrame:
    return mlflow.search_runs(
        search_all_experiments=True, filter_string=f"tags.`medtl.kind` = '{kind}'"
    )


def artifact(run_id: str, place: str) -> str:
    return mlflow.artifacts.load_text(f"runs:/{run_id}/{place}")


def table_of(run_id: str, name: str = "cells") -> pd.DataFrame:
    path = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/report/{name}.csv")
    return pd.read_csv(path)


def trained_in(run_id: str) -> list[dict]:
    table = table_of(run_id)
    return table[table["state"] == "complete"].to_dict("records")


def test_a_study_leaves_a_report_and_goes_on_where_it_was_stopped(
    small_phantoms, capsys, monkeypatch
):
    settings = CompareSettings(
        data=str(small_phantoms), **TINY, cutoffs="head,all", transfer="finetune,hybrid",
        fractions="0.5", views=1, lr=1e-3,
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
    assert list(table["state"]) == ["complete"] * 3 + ["failed"]
    assert list(table_of(first["run_id"], "baselines")["baseline"]) == [
        "baseline: frozen features, shufflenet_v2_x0_5",
        "baseline: brightness of 8 x 8 fields",
        "baseline: file properties",
    ]
    assert table["baseline_gain"].notna().tolist() == [True] * 3 + [False]
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
    with pytest.raises(MedtlError, match=r"\d+ of the validation and test images"):
        SharedResources(settings, plan).origin(cell)


def test_the_validation_split_chooses_the_learning_rate_of_an_arm(small_phantoms, capsys):
    settings = CompareSettings(
        data=str(small_phantoms), **{**TINY, "image_size": 32, "epochs": 4}, cutoffs="head",
        rates="1e-7,0.01", seeds="0,1", views=1,
    )  # fmt: skip
    compare(settings)
    said = capsys.readouterr().out
    run_id = runs("compare").iloc[0]["run_id"]
    place = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/report/rates.csv")
    rates = pd.read_csv(place)
    assert list(rates["lr"]) == [1e-7, 0.01]
    best = rates.loc[rates["valid_auroc"].idxmax()]
    assert list(rates["chosen"]) == list(rates["lr"] == best["lr"])
    first, second = trained_in(run_id)
    assert (first["lr"], second["lr"]) == (best["lr"], best["lr"])
    assert first["valid_auroc"] == pytest.approx(best["valid_auroc"])
    tried = [float(each) for each in first["rates_valid_auroc"].split(", ")]
    assert tried == pytest.approx(list(rates["valid_auroc"]), abs=1e-4)
    assert pd.isna(second["rates_valid_auroc"]), "the second seed has the rate of the first"
    chooser = mlflow.get_run(first["run_id"])
    assert chooser.data.params["lr"] == f"{best['lr']}"
    assert chooser.data.params["rates"] == "1e-07,0.01"
    assert f"{best['lr']:g} in 1" in said
    page = artifact(run_id, "report/report.html")
    assert all(f"{each.lr:g}: {each.valid_auroc:.3f}" in page for each in rates.itertuples())

    compare(settings)
    assert "2 of them were known" in capsys.readouterr().out
    again = runs("compare").iloc[0]["run_id"]
    assert artifact(again, "report/rates.csv") == artifact(run_id, "report/rates.csv")
    # the same as when that rate is given, and no better for the other candidate
    compare(dataclasses.replace(settings, rates="", lr=best["lr"]))
    assert "1 of them were known" in capsys.readouterr().out
    given = trained_in(runs("compare").iloc[0]["run_id"])
    assert [each["test_auroc"] for each in given] == [first["test_auroc"], second["test_auroc"]]


def test_a_head_that_is_solved_has_no_learning_rate(small_phantoms):
    compare(
        CompareSettings(
            data=str(small_phantoms), **{**TINY, "image_size": 32, "epochs": 0}, cutoffs="head"
        )
    )
    run_id = runs("compare").iloc[0]["run_id"]
    (cell,) = trained_in(run_id)
    assert cell["lr"] == 0
    assert pd.isna(cell["rates_valid_auroc"])
    assert "rates" not in mlflow.get_run(cell["run_id"]).data.params
    assert "<td>none</td>" in artifact(run_id, "report/report.html")


@pytest.mark.slow
def test_a_larger_source_is_drawn_down_to_the_smaller_one(small_phantoms, tmp_path, capsys):
    sources = {}
    for name, patients in (("few", 24), ("many", 60)):
        folder = tmp_path / name
        folder.mkdir()
        write_axial_phantoms(folder, seed=patients, patients=patients, image_size=32)
        sources[name] = str(folder / "labels.csv")
    settings = CompareSettings(
        study="alzubaidi2020", data=str(small_phantoms), same=sources["many"],
        different=sources["few"], architecture="small_resnet", image_size=32,
    )  # fmt: skip
    plan = plan_of(settings)
    bench = SharedResources(settings, plan)
    made = {
        series: bench.origin(next(cell for cell in plan.cells if cell.series == series)).source
        for series in ("same domain", "different domain")
    }
    (note,) = bench.notes
    drawn, fewest = re.fullmatch(
        r"pretraining uses (\d+) of the \d+ training images of many, .*smallest source has (\d+)",
        note,
    ).groups()
    assert int(drawn) == pytest.approx(int(fewest), rel=0.1)
    assert f"data many: {drawn} of " in capsys.readouterr().err
    assert all(made.values())


def test_a_share_is_drawn_by_patient_and_of_each_class_alike(small_phantoms):
    dataset = training_data(CompareSettings(data=str(small_phantoms)), 32)
    train = dataset.splits["train"]
    rows = drawn_down(dataset, 60, seed=0)
    assert len(rows) == pytest.approx(60, abs=4)
    left = np.delete(train, rows)
    assert not set(dataset.groups[train[rows]]) & set(dataset.groups[left])
    shares = dataset.counts(train[rows]) / dataset.counts(train)
    assert shares == pytest.approx(np.full(len(shares), 60 / len(train)), abs=0.1)
    assert len(drawn_down(dataset, 10_000, seed=0)) == len(train)
