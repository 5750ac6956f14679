"""What a tracking server with logins lets this user do: asked before the work, and said in a line.

The basic-auth app of MLflow gives each user a permission for each experiment and registered model:
READ, EDIT (with which runs and versions are made), MANAGE (with which they are deleted too).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking.fluent import _get_experiment_id
from mlflow.utils.credentials import get_default_host_creds, read_mlflow_creds
from mlflow.utils.rest_utils import http_request

from medtl.errors import MedtlError
from medtl.masking import masked_value

ASKED_AT = "/api/3.0/mlflow/users/permissions/get"
ENOUGH = ("EDIT", "MANAGE")
OF_REGISTRY = ("/registered-models/", "/model-versions/")


def check_may_change(model_name: str) -> None:
    """Asks whether this user may change a registered model, which is done when all else is.

    A name that nobody has taken is everybody's. A server without the basic-auth app of MLflow does
    not answer this, and may still refuse at the end.

    Raises:
        MedtlError: the model is another's, and this user may not change it.
    """
    uri, user = mlflow.get_registry_uri(), read_mlflow_creds().username
    if user is None or not uri.startswith("http"):
        return
    asked = {"username": user, "resource_type": "registered_model", "resource_id": model_name}
    answer = http_request(get_default_host_creds(uri), ASKED_AT, "GET", params=asked)
    permission = answer.json().get("permission") if answer.ok else None
    if permission is None or permission in ENOUGH or _is_free(model_name):
        return
    raise MedtlError(
        f"{user} may not change the registered model {model_name} at {masked_value(uri)} "
        f"(permission {permission}): ask who made it, or the server's admin, for EDIT, or give "
        "another name"
    )


@contextmanager
def permission_watched() -> Iterator[None]:
    """Says in one line what the tracking server does not let this user do.

    Raises:
        MedtlError: it has refused a request for want of permission.
    """
    try:
        yield
    except MlflowException as error:
        if not is_refused(error):
            raise
        of_registry = any(part in str(error) for part in OF_REGISTRY)
        what = "change this registered model" if of_registry else f"write in {_experiment()}"
        remedy = "" if of_registry else ", or choose another by MLFLOW_EXPERIMENT_NAME"
        raise MedtlError(
            f"the tracking server {masked_value(mlflow.get_tracking_uri())} does not let "
            f"{read_mlflow_creds().username} {what}: ask who made it, or the server's admin, for "
            f"EDIT (MANAGE to delete){remedy}"
        ) from error


def is_refused(error: MlflowException) -> bool:
    """Returns whether an error is a denied permission."""
    return error.error_code == "PERMISSION_DENIED" or "error code 403" in str(error)


def _is_free(model_name: str) -> bool:
    try:
        MlflowClient().get_registered_model(model_name)
    except MlflowException as error:
        return error.error_code == "RESOURCE_DOES_NOT_EXIST"
    return False


def _experiment() -> str:
    """Returns the experiment in which runs are begun, by its name where that may be read."""
    number = _get_experiment_id()
    with suppress(MlflowException):
        return f"experiment {MlflowClient().get_experiment(number).name}"
    return f"experiment number {number}"
