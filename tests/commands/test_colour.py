"""Colour images from training to the answer of the logged model."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from PIL import Image

from medtl.commands.train import train
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.settings.training import TrainSettings

TINT = (1.0, 0.6, 0.8)


def test_a_model_of_colour_images_is_trained_logged_and_answers(tmp_path: Path) -> None:
    folder = tmp_path / "stained"
    folder.mkdir()
    write_chest_phantoms(folder, patients=24, image_size=32)
    for path in folder.glob("*.png"):
        grey = np.asarray(Image.open(path))
        Image.fromarray((grey[..., None] * np.array(TINT)).astype(np.uint8)).save(path)

    train(
        TrainSettings(
            data=str(folder / "labels.csv"),
            architecture="small_resnet",
            weights="random",
            image_size=32,
        )
    )

    (logged,) = mlflow.search_logged_models(output_format="list")
    asked = pd.DataFrame({"image": [next(folder.glob("*.png")).read_bytes()]})
    (answer,) = mlflow.pyfunc.load_model(logged.model_uri).predict(asked).to_dict("records")
    assert answer["error"] is None
    assert answer["label"] in ("clear", "diffuse", "focal")
