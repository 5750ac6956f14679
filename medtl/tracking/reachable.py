"""Checks of the registry and the champion before work whose end needs both."""

from __future__ import annotations

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from medtl.errors import MedtlError
from medtl.masking import masked_value, without_secrets
from medtl.tracking.models import check_files
from medtl.tracking.permissions import check_may_change
from medtl.tracking.registry import CHAMPION
from medtl.tracking.tables import check_opens


def check_registry(model_name: str) -> None:
    """Checks that a registered model can get a version, and that its champion can be loaded.

    Reads only the list of the champion's files.

    Raises:
        MedtlError: no response from the registry, no permission to change the model, or missing
            files of the champion.
    """
    check_opens(mlflow.get_registry_uri(), "the registry", "MLFLOW_REGISTRY_URI")
    check_may_change(model_name)
    try:
        champion = MlflowClient().get_registered_model(model_name).aliases.get(CHAMPION)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return
        uri = mlflow.get_registry_uri()
        reason = without_secrets(" ".join(str(error).split()), uri)[:300]
        raise MedtlError(
            f"the registry {masked_value(uri)} does not answer ({reason}); set "
            "MLFLOW_REGISTRY_URI, or unset it to take the tracking store"
        ) from error
    if champion is None:
        return
    try:
        check_files(f"models:/{model_name}/{champion}")
    except MedtlError as error:
        raise MedtlError(
            f"the new model could not be compared with the champion of {model_name}: {error}; put "
            "its files back, make another version the champion with promote, or give another "
            "model_name"
        ) from error
