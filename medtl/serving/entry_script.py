"""Script of a logged model, which MLflow runs to load it."""

import sys
from pathlib import Path

from mlflow.models import set_model

PACKAGE = "medtl"


def drop_code_of_other_models() -> None:
    """Removes the package of another logged model from `sys.modules`.

    Each logged model has its own copy of the package. In a process that has loaded a model of
    another version before, imports would find that copy. The other model keeps the modules that it
    has imported. An installed package is left in place and serves this model.
    """
    other = sys.modules.get(PACKAGE)
    if other is None or other.__file__ is None:
        return
    code = Path(other.__file__).parents[1]
    if code != Path(__file__).parent / "code" and (code.parent / "MLmodel").is_file():
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]


drop_code_of_other_models()

from medtl.serving.handler import ServedModel  # noqa: E402

set_model(ServedModel())
