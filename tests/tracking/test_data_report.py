"""Every run that logs its data has the data report, and the console has what matters."""

from __future__ import annotations

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.artifacts import load_text
from mlflow.tracking import MlflowClient
from PIL import Image

from medtl.data.dataset import load
from medtl.tracking.journal import log_data


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
