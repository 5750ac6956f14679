"""Tags of runs that only this program reads.

MLflow's pages hide tags that begin with `mlflow.`, and so these do. Runs of earlier releases have
them under their names without this prefix, which are still read.
"""

from __future__ import annotations

from collections.abc import Mapping

PREFIX = "mlflow."


def hidden_tag(tags: Mapping[str, str], name: str) -> str | None:
    """Returns a hidden tag of a run, under its present name or the earlier one; None without it.

    >>> hidden_tag({"medtl.asks": "a"}, "mlflow.medtl.asks")
    'a'
    """
    return next((tags[each] for each in names_of(name) if each in tags), None)


def names_of(name: str) -> tuple[str, str]:
    """Returns the present and the earlier name of a hidden tag.

    >>> names_of("mlflow.medtl.asks")
    ('mlflow.medtl.asks', 'medtl.asks')
    """
    return name, name.removeprefix(PREFIX)
