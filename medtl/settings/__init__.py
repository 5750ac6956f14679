"""Settings of the entry points: frozen, typed, each with its meaning, checked once at the door.

A field's metadata is the only place where a parameter is described: the command line, the
checks, MLproject and docs/reference/ are made from it (tools/generate_reference.py).
"""

from medtl.settings.learning import (
    CLASSIFIERS,
    OF_DATA,
    DataSettings,
    LearningSettings,
    ModelSettings,
    PretrainSettings,
    TrainSettings,
    TuneSettings,
)
from medtl.settings.models import (
    DictionarySettings,
    EvaluateSettings,
    PerturbSettings,
    PromoteSettings,
)
from medtl.settings.studies import CompareSettings

__all__ = [
    "CLASSIFIERS",
    "OF_DATA",
    "CompareSettings",
    "DataSettings",
    "DictionarySettings",
    "EvaluateSettings",
    "LearningSettings",
    "ModelSettings",
    "PerturbSettings",
    "PretrainSettings",
    "PromoteSettings",
    "TrainSettings",
    "TuneSettings",
]
