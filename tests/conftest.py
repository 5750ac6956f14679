"""Every test has a cache and a tracking store of its own, and no test reaches the network."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import pytest

from medtl.data.phantoms import write_chest_phantoms

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    # tests that run side by side share the processor: threads that compete wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking store with its tables made, which takes MLflow seconds: tests copy it."""
    import mlflow

    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("MEDTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)


@pytest.fixture(scope="session")
def chestxray14(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CSV of 24 phantom patients at 48 px, laid out as ChestX-ray14 is published.

    About 70 images in two parts, with the two lists: the last six patients are for testing.
    """
    findings = {
        "clear": ("No Finding",),
        "diffuse": ("Infiltration", "Effusion|Infiltration"),
        "focal": ("Nodule", "Mass|Nodule|Pleural_Thickening"),
    }
    drawn = tmp_path_factory.mktemp("drawn")
    write_chest_phantoms(drawn, seed=2, patients=24, image_size=48)
    folder = tmp_path_factory.mktemp("published") / "ChestX-ray14"
    rows, lists = [], {"train_val_list.txt": [], "test_list.txt": []}
    with open(drawn / "labels.csv", newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            patient, visit = int(row["patient"][1:]) + 1, int(row["path"][6:7])
            name = f"{patient:08d}_{visit:03d}.png"
            part = folder / f"images_{1 + (patient > 9):03d}" / "images"
            part.mkdir(parents=True, exist_ok=True)
            shutil.move(drawn / row["path"], part / name)
            lists["test_list.txt" if patient > 18 else "train_val_list.txt"].append(name)
            found = findings[row["label"]][number % len(findings[row["label"]])]
            rows.append(f"{name},{found},{visit},{patient},{40 + patient},M,PA,48,48,0.143,0.143,")
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    )
    for name, names in lists.items():
        (folder / name).write_text("\n".join(names))
    table = folder / "Data_Entry_2017_v2020.csv"
    table.write_text("\n".join([header, *rows]) + "\n")
    return table
