"""A network of timm through the commands: pretrain, train, compare, tune, perturb, served."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from medtl.commands.compare import compare
from medtl.commands.dictionary import dictionary
from medtl.commands.perturb import perturb
from medtl.commands.pretrain import pretrain
from medtl.commands.train import train
from medtl.commands.tune import tune
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.settings.comparison import CompareSettings
from medtl.settings.evaluation import DictionarySettings, PerturbSettings
from medtl.settings.search import TuneSettings
from medtl.settings.training import PretrainSettings, TrainSettings

VIT, CONVNEXT = "timm:test_vit", "timm:test_convnext"
BACKBONE = "models:/own-vit/1"

PREDICT = """
import json, pathlib, sys
import mlflow, pandas as pd

model = mlflow.pyfunc.load_model(sys.argv[1])
import medtl
files = [pathlib.Path(path).read_bytes() for path in sys.argv[2:]]
table = model.predict(pd.DataFrame({"image": files}))
print(json.dumps([medtl.__file__, table.to_dict(orient="records")]))
"""


@pytest.mark.slow
def test_a_network_of_timm_goes_through_every_command(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "clinic"
    folder.mkdir()
    write_chest_phantoms(folder, seed=3, patients=36, image_size=32)
    asked = {"data": str(folder / "labels.csv"), "image_size": 32, "augment": "none"}
    pretrain(PretrainSettings(**asked, epochs=1, architecture=VIT, backbone_name="own-vit"))
    from_backbone = {**asked, "architecture": VIT, "weights": BACKBONE}
    train(TrainSettings(**from_backbone, transfer="hybrid", cutoff="blocks.3"))
    both = {"architecture": f"{VIT},{CONVNEXT}", "weights": f"random,{BACKBONE}"}
    compare(CompareSettings(**asked, **both, epochs=1, cutoffs="head", lr=1e-3))
    tune(TuneSettings(**asked, **both, epochs=1, optimizers="adam", trials=3, model_name="wards"))
    printed = capsys.readouterr().out
    assert "wards version 1: version 1 is the first champion" in printed
    train(
        TrainSettings(
            **from_backbone, epochs=1, cutoff="blocks.5", transfer="lora", model_name="wards"
        )
    )
    # the gate compares a transformer with merged adapters and the model of the search
    assert "wards version 2: " in capsys.readouterr().out
    perturb(PerturbSettings(model="models:/wards/2", zeta="0.1"))
    dictionary(DictionarySettings())
    listed = capsys.readouterr().out
    assert VIT in listed
    assert CONVNEXT in listed

    (version,) = MlflowClient().search_model_versions("name='wards' and version_number=2")
    served = mlflow.artifacts.download_artifacts(version.source, dst_path=str(tmp_path / "served"))
    answers = _served(Path(served), sorted(folder.glob("*.png"))[:3], tmp_path)
    assert [each["error"] for each in answers] == [None] * 3
    model = mlflow.pyfunc.load_model("models:/wards/2")
    rows = pd.DataFrame({"image": [each.read_bytes() for each in sorted(folder.glob("*.png"))[:3]]})
    for own, expected in zip(answers, model.predict(rows).to_dict(orient="records"), strict=True):
        assert own["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)


def _served(place: Path, images: list[Path], cwd: Path) -> list[dict]:
    """Answers of a model by the code that it brings, without timm's hub."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cwd / "no hub")}
    asked = subprocess.run(
        [sys.executable, "-c", PREDICT, str(place), *map(str, images)],
        env=environment, cwd=cwd, capture_output=True, text=True,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    code, answers = json.loads(asked.stdout.splitlines()[-1])
    assert Path(code).is_relative_to(place)
    return answers
