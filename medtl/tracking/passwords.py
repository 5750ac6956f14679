"""Passwords that `mlflow run` wrote into a run's parameters before this project was asked."""

from __future__ import annotations

import sys

from mlflow.entities import Run
from mlflow.store.tracking.dbmodels.models import SqlParam
from mlflow.tracking._tracking_service.utils import _get_store

from medtl.masking import masked_value


def hide_passwords(run: Run) -> None:
    """Masks the passwords in a run's parameters, where the store lies open to this process.

    MLflow itself never changes a parameter. Over a tracking server it cannot be done, and the
    line on stderr says so. Either way the password has stood on the command line.
    """
    typed = {name: value for name, value in run.data.params.items() if masked_value(value) != value}
    if not typed:
        return
    sessions = getattr(_get_store(), "ManagedSessionMaker", None)
    if sessions is not None:
        with sessions() as session:
            for name, value in typed.items():
                parameter = session.query(SqlParam).filter_by(run_uuid=run.info.run_id, key=name)
                parameter.update({"value": masked_value(value)})
    healed = "was" if sessions is not None else f"of run {run.info.run_id} was, and stays,"
    print(
        f"warning: the password in {', '.join(typed)} {healed} written down by mlflow run; "
        "give it as PGPASSWORD or in ~/.pgpass instead",
        file=sys.stderr,
    )
