"""The embedded transfer: a backbone that the project pretrains itself, on phantoms, once."""

from __future__ import annotations

import dataclasses

import mlflow

from medtl.keep import key_of
from medtl.settings import ModelSettings
from medtl.tracking.registry import find_version, register
from medtl.tracking.runs import nested_run

SOURCE = "phantoms-source"
RECIPE_TAG = "medtl.recipe"
