"""Lineage of a model: its run, settings, and pretrained backbone."""

from __future__ import annotations

import json

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from medtl.errors import MedtlError, ParameterError
from medtl.reporting.csv_export import as_written
from medtl.tracking.store import check_login, make_tables

SETTINGS_FILE = "settings.json"
PREDICTIONS = "evaluation/test/predictions.csv"
BASELINES = "evaluation/test/baselines.csv"  # artifact of a training
DOUBTFUL = "cross_validation/doubtful_labels.csv"  # artifact of a training with folds


def architecture_of(uri: str) -> str:
    """Reads the architecture of the model at an MLflow URI from its description.

    Raises:
        MedtlError: the model does not exist, or is not one of medtl.
    """
    check_login()
    make_tables()
    try:
        metadata = mlflow.models.get_model_info(uri).metadata or {}
        return metadata["architecture"]
    except (MlflowException, OSError, KeyError) as error:
        raise MedtlError(
            f"the model {uri} cannot be loaded: it is not there, or holds no model of medtl "
            f"({' '.join(str(error).split())[:300]})"
        ) from error


def training_settings(uri: str) -> dict[str, object]:
    """Reads the settings of the training of the model at an MLflow URI.

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
            f"({' '.join(str(error).split())[:200]}); give data="
        ) from error


def test_predictions(uri: str) -> pd.DataFrame:
    """Reads the predictions of the model at an MLflow URI on its own test split.

    A row a case, all as text: columns `label`, `patient` ('' where unknown), `decision` and
    `probability_CLASS` for each class.

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
    """Reads the baselines of the training of the model at an MLflow URI: a row each, as text.

    None if its run is gone, or has none.
    """
    try:
        return _logged_table(uri, BASELINES)
    except (MlflowException, OSError, ValueError):
        return None


def doubtful_list(uri: str) -> pd.DataFrame | None:
    """Reads the doubtful labels that the training of the model at an MLflow URI listed, as text.

    None if its run is gone, or had no folds.
    """
    try:
        return _logged_table(uri, DOUBTFUL)
    except (MlflowException, OSError, ValueError):
        return None


def listed_labels(place: str) -> pd.DataFrame:
    """Reads a list of doubtful labels, as text, from a file or from an artifact's URI.

    Raises:
        ParameterError: it cannot be read.
    """
    try:
        file = mlflow.artifacts.download_artifacts(artifact_uri=place) if ":/" in place else place
        return as_written(pd.read_csv(file, dtype=str, keep_default_na=False))
    except (MlflowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        allowed = f"a doubtful_labels.csv, or its URI runs:/RUN/{DOUBTFUL} ({reason})"
        raise ParameterError("doubtful", place, allowed) from error


def _logged_table(uri: str, place: str) -> pd.DataFrame:
    run_id = mlflow.models.get_model_info(uri).run_id
    file = mlflow.artifacts.download_artifacts(artifact_uri=f"runs:/{run_id}/{place}")
    return as_written(pd.read_csv(file, dtype=str, keep_default_na=False))


RECIPE_TAG = "medtl.recipe"  # on a backbone's version: key of the settings that made it


def find_backbone(name: str, recipe: str) -> int | None:
    """Returns the newest version of `name` made by this recipe, None if there is none."""
    found = MlflowClient().search_model_versions(f"name='{name}'")
    made = [int(each.version) for each in found if each.tags.get(RECIPE_TAG) == recipe]
    return max(made, default=None)


def mark_backbone(name: str, version: int, recipe: str) -> None:
    """Tags a version with the key of its recipe."""
    MlflowClient().set_model_version_tag(name, str(version), RECIPE_TAG, recipe)
