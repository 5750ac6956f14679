"""A model trained on a GPU: evaluated and predicted there, served by the processor.

`GPU_TESTS_ON=cpu` runs the same tests on the processor.
"""

from __future__ import annotations

import os
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from medtl.commands.evaluate import evaluate
from medtl.commands.train import train
from medtl.settings.evaluation import EvaluateSettings
from medtl.settings.training import TrainSettings
from medtl.tracking.logged_model import load_bundle

pytestmark = pytest.mark.gpu

DEVICE = os.environ.get("GPU_TESTS_ON", "cuda")


def trained_on_gpu(table: Path) -> str:
    """Trains a small network; returns the URI of its model."""
    train(
        TrainSettings(
            data=str(table),
            architecture="small_resnet",
            weights="random",
            image_size=64,
            epochs=1,
            augment="none",
            device=DEVICE,
        )
    )
    return mlflow.search_logged_models(output_format="list")[0].model_uri


def test_a_model_is_evaluated_and_served_as_on_the_processor(small_phantoms: Path) -> None:
    uri = trained_on_gpu(small_phantoms)

    scores = []
    for device in ("cpu", DEVICE):
        evaluate(EvaluateSettings(model=uri, device=device))
        kind = "tags.`medtl.kind` = 'evaluate'"
        run = mlflow.search_runs(search_all_experiments=True, filter_string=kind).iloc[0]
        scores.append(run["metrics.test_brier"])
    assert scores[1] == pytest.approx(scores[0], abs=0.01)

    paths = pd.read_csv(small_phantoms)["path"].head(6)
    files = pd.DataFrame({"image": [(small_phantoms.parent / path).read_bytes() for path in paths]})
    served = mlflow.pyfunc.load_model(uri)
    assert next(load_bundle(uri).network.parameters()).device.type == "cpu"
    on_processor = served.predict(files, params={"explain": True})
    model = served.unwrap_python_model()
    model.bundle.network.to(DEVICE)
    on_gpu = model.predict(None, files, {"explain": True})

    np.testing.assert_allclose(
        on_gpu["probability"].astype(float), on_processor["probability"].astype(float), atol=0.02
    )
    assert on_gpu["error"].isna().all()
    assert on_gpu["heatmap"].notna().all()
