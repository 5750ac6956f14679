"""Script that MLflow runs to build the served model."""

from mlflow.models import set_model

from medtl.serving.handler import ServedModel

set_model(ServedModel())
