"""The tracking server, if there is one: whether it lets this user in, and where it shows what."""

from __future__ import annotations

from urllib.parse import urlsplit

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from medtl.errors import MedtlError
from medtl.masking import masked_value, without_secrets
from medtl.tracking.lost import ask_only_once
from medtl.tracking.tables import check_opens


def check_login() -> None:
    """Checks that the tracking server responds to this user, or that the database opens.

    Raises:
        MedtlError: no response, or no access.
    """
    uri = mlflow.get_tracking_uri()
    if not uri.startswith("http"):
        check_opens(uri, "the tracking store", "MLFLOW_TRACKING_URI")
        return
    try:
        MlflowClient().search_experiments(max_results=1)
    except MlflowException as error:
        shown = masked_value(uri)
        reason = without_secrets(" ".join(str(error).split()), uri)
        if "Invalid Host header" in reason:
            raise MedtlError(
                f"the tracking server does not take {shown} for its address; start it with "
                f"--allowed-hosts {urlsplit(uri).netloc.rpartition('@')[2]}, or set "
                "MLFLOW_TRACKING_URI"
            ) from error
        if "code 401" in reason or "code 403" in reason:
            raise MedtlError(
                f"the tracking server {shown} does not let this user in; set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            ) from error
        ask_only_once()
        raise MedtlError(
            f"the tracking server {shown} does not answer: {reason[:300]}; set MLFLOW_TRACKING_URI"
        ) from error


def found_at(place: str) -> str:
    """Where a person finds an artifact of the active run: its file, or its page on a server."""
    uri, run = mlflow.get_tracking_uri(), mlflow.active_run().info
    if not uri.startswith("http"):
        return mlflow.get_artifact_uri(place).removeprefix("file://")
    page = f"experiments/{run.experiment_id}/runs/{run.run_id}/artifacts/{place}"
    return f"{masked_value(uri).rstrip('/')}/#/{page}"
