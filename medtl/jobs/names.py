"""Names of registered models and of studies, made from what they are about."""

from __future__ import annotations

import re

from medtl.data.table import data_name


def registered_name(model_name: str, data: str) -> str:
    """The registered model: `model_name`, or for `auto` medtl-DATA with the data set's own name."""
    if model_name != "auto":
        return model_name
    return f"medtl-{plain(data_name(data))}"


def backbone_name(data_name: str, architecture: str) -> str:
    """The registered backbone that nobody named: medtl-DATA-ARCHITECTURE."""
    return f"medtl-{plain(data_name)}-{plain(architecture)}"


def study_name(data_name: str, architecture: str, weights: str) -> str:
    """The name of a new study: data, architecture and weights."""
    return "-".join(map(plain, (data_name, architecture, weights)))


def plain(text: str) -> str:
    """Letters, digits, dots, underscores and dashes; all else becomes a dash."""
    return re.sub(r"[^\w.]+", "-", text).strip("-")
