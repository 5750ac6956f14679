"""The tracking server, where there is one: whether it lets this user in."""

from __future__ import annotations

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from medtl.errors import MedtlError
from medtl.tracking.lost import ask_only_once


def check_login() -> None:
    """Asks a tracking server for as good as nothing.

    Raises:
        MedtlError: it does not answer, or not to this user.
    """
    uri = mlflow.get_tracking_uri()
    if not uri.startswith("http"):
        return
    try:
        MlflowClient().search_experiments(max_results=1)
    except MlflowException as error:
        reason = " ".join(str(error).split())
        if "code 401" in reason or "code 403" in reason:
            raise MedtlError(
                f"the tracking server {uri} does not let this user in; set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            ) from error
        ask_only_once()
        raise MedtlError(
            f"the tracking server {uri} does not answer: {reason[:300]}; set MLFLOW_TRACKING_URI"
        ) from error
