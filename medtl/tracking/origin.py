"""Origin of a logged model: its run, and that run's settings."""

from __future__ import annotations

import json

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from medtl.errors import MedtlError
from medtl.spreadsheet import as_written
from medtl.tracking.server import check_login
from medtl.tracking.tables import make_tables

SETTINGS_FILE = "settings.json"
PREDICTIONS = "evaluation/test/predictions.csv"
BASELINES = "evaluation/test/baselines.csv"  # artifact of a training


def architecture_of(uri: str) -> str:
    """Reads the architecture of the model at an MLflow URI from its description.

    Raises:
        MedtlError: the model does not exist, or is not one of medtl.
    """
    check_login()
    make_tables()
    try:
        return mlflow.models.get_model_info(uri).metadata["architecture"]
    except (MlflowException, OSError, TypeError, KeyError) as error:
        raise MedtlError(
            f"the model {uri} cannot be loaded: it is not there, or holds no model of medtl "
            f"({' '.join(str(error).split())[:300]})"
        ) from error


def training_settings(uri: str) -> dict[str, object]:
    """The settings with which the model at this MLflow URI was made, by their names.

    Raises:
        MedtlError: the model's run is gone, or was not made by this project.
    """
    try:
        run_id = mlflow.models.get_model_info(uri).run_id
        text = mlflow.artifacts.load_text(f"runs:/{run_id}/{SETTINGS_FILE}")
        return json.loads(text)
    except (MlflowException, OSError, ValueError) as error:
        raise MedtlError(
            f"the settings that {uri} was trained with cannot be read "
            f"({' '.join(str(error).split())[:200]}); say which data with data="
        ) from error


def test_predictions(uri: str) -> pd.DataFrame:
    """What the model at this MLflow URI said of its own test split: a row a case, all as text.

    Columns `label`, `patient` ('' where unknown), `decision` and a `probability_CLASS` each.

    Raises:
        MedtlError: the model's run is gone, or was not made by this project.
    """
    try:
        return _logged_table(uri, PREDICTIONS)
    except (MlflowException, OSError, ValueError) as error:
        raise MedtlError(
            f"the predictions of {uri} on its own test split cannot be read "
            f"({' '.join(str(error).split())[:200]})"
        ) from error


def test_baselines(uri: str) -> pd.DataFrame | None:
    """The baselines beside the model at this MLflow URI: a row each, all as text.

    None where its run is gone, or has none.
    """
    try:
        return _logged_table(uri, BASELINES)
    except (MlflowException, OSError, ValueError):
        return None


def _logged_table(uri: str, place: str) -> pd.DataFrame:
    run_id = mlflow.models.get_model_info(uri).run_id
    file = mlflow.artifacts.download_artifacts(artifact_uri=f"runs:/{run_id}/{place}")
    return as_written(pd.read_csv(file, dtype=str, keep_default_na=False))
