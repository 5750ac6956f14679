"""Every run that logs its data has the data report, and the console has what matters."""

from __future__ import annotations

import dataclasses
import shutil

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.artifacts import load_text
from mlflow.tracking import MlflowClient
from PIL import Image

from medtl.cache import cache_root
from medtl.commands.train import train
from medtl.data.loading import load
from medtl.errors import MedtlError
from medtl.pipeline.run_logging import log_data
from medtl.settings.training import TrainSettings
from medtl.tracking.runs import tracked_run


@pytest.fixture
def scans(tmp_path):
    """Two classes of smooth images; one of them has a copy in the test split."""
    random = np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        for kind in "ab":
            folder = tmp_path / "scans" / split / kind
            folder.mkdir(parents=True)
            for number in range(4):
                coarse = random.integers(0, 256, (20, 20), dtype=np.uint8)
                Image.fromarray(coarse).resize((64, 64)).save(folder / f"{number}.png")
    root = tmp_path / "scans"
    Image.open(root / "train/a/0.png").save(root / "test/a/copy.jpg", quality=80)
    return root


def test_the_report_is_an_artifact_and_what_matters_is_printed(scans, capsys):
    with mlflow.start_run() as run:
        log_data(load(str(scans), 64, 0))
    printed = capsys.readouterr()
    assert "data scans: 1 group of nearly identical images in two splits" in printed.err
    assert "two splits" not in printed.out
    artifacts = {item.path for item in MlflowClient().list_artifacts(run.info.run_id, "data")}
    names = ("report.html", "near_duplicates.csv", "classes.csv", "sizes.csv", "splits.csv")
    assert {f"data/{name}" for name in names} <= artifacts
    assert "data/blank.csv" not in artifacts
    place = run.info.artifact_uri
    assert "<h1>The data: scans</h1>" in load_text(f"{place}/data/report.html")
    (tmp := scans.parent / "pairs.csv").write_text(load_text(f"{place}/data/near_duplicates.csv"))
    (pair,) = pd.read_csv(tmp).to_dict("records")
    assert {pair["first_path"], pair["second_path"]} == {"train/a/0.png", "test/a/copy.jpg"}


def test_findings_are_the_warnings_of_data_but_of_phantoms(scans):
    dataset = load(str(scans), 64, 0)
    with mlflow.start_run():
        (warning,) = log_data(dataset).warnings
        assert warning.startswith("1 group of nearly identical images in two splits")
        assert log_data(dataclasses.replace(dataset, source="phantoms")).warnings == ()


def test_findings_stand_beside_the_scores_in_the_card_and_in_the_verdict(scans, capsys):
    settings = TrainSettings(
        data=str(scans), architecture="shufflenet_v2_x0_5", weights="random", image_size=64,
        epochs=1, model_name="scans",
    )  # fmt: skip
    train(settings)
    finding = "1 group of nearly identical images in two splits"
    lines = capsys.readouterr().out.splitlines()
    scores, warning, verdict = (
        next(number for number, line in enumerate(lines) if line.startswith(start))
        for start in ("test scores", "warning  ", "registered")
    )
    assert scores < warning < verdict
    assert finding in lines[warning]
    assert finding in lines[verdict]
    card = MlflowClient().get_model_version("scans", "1").description
    assert card.index("**Test split, 9 images:** AUROC") < card.index("**Warning:** data report: 1")
    assert f"- Data report: {finding}" in card.partition("## Limits")[2]
    (run,) = MlflowClient().search_runs(["0"], "tags.`medtl.kind` = 'train'")
    assert run.data.tags["medtl.optimizer"] == "adam"
    assert run.data.tags["medtl.epochs"] == "1 of 1, best 1"
    assert "\n- lr: 0.001\n" in load_text(f"{run.info.artifact_uri}/model_card.md")


def test_refused_data_leaves_its_whole_list_in_a_failed_run(scans, capsys):
    rows = ["path,label,patient,split"]
    for split in ("train", "test"):
        rows += [f"{split}/{kind}/{n}.png,{kind},p{n},{split}" for kind in "ab" for n in range(4)]
    (scans / "labels.csv").write_text("\n".join(rows) + "\n")
    settings = TrainSettings(data=str(scans / "labels.csv"), weights="random", image_size=64)
    with pytest.raises(MedtlError, match=r"4 patients .*crossing_patients.csv of run") as refusal:
        train(settings)
    (run,) = MlflowClient().search_runs(["0"], max_results=1)
    assert run.info.status == "FAILED"
    assert run.data.tags["medtl.error"] == str(refusal.value)
    assert run.info.run_id in str(refusal.value)
    text = load_text(f"{run.info.artifact_uri}/data/crossing_patients.csv")
    assert len(text.splitlines()) == 1 + 16
    assert "train/b/3.png" in load_text(f"{run.info.artifact_uri}/data/report.html")


def test_a_line_that_the_notes_have_is_printed_once(scans, capsys):
    shutil.copy(scans / "train/a/1.png", scans / "train/a/again.png")
    rows = ["path,label,patient"]
    for number, file in enumerate(sorted(scans.rglob("*.png"))):
        rows.append(f"{file.relative_to(scans)},{file.parent.name},p{number}")
    (scans / "labels.csv").write_text("\n".join(rows) + "\n")
    with mlflow.start_run():
        log_data(load(str(scans / "labels.csv"), 64, 0))
    assert capsys.readouterr().err.count("identical images under two patients") == 1


def test_a_full_cache_is_named_and_not_the_artifact_store(scans, small_disk, monkeypatch):
    dataset = load(str(scans), 64, 0)
    monkeypatch.setenv("MEDTL_CACHE", str(small_disk(64)))
    with (
        pytest.raises(MedtlError, match=r"No space left.*set MEDTL_CACHE") as full,
        tracked_run("train", TrainSettings()) as run,
    ):
        log_data(dataset)
    assert f"cannot write to {cache_root()} " in str(full.value)
    assert run.info.artifact_uri not in str(full.value)
    assert mlflow.get_run(run.info.run_id).data.tags["medtl.error"] == str(full.value)
