"""The script that MLflow runs to make the served model; its code lies in the model, beside it."""

from mlflow.models import set_model

from medtl.tracking.serving import ServedModel

set_model(ServedModel())
