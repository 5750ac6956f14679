"""Registered backbones, found again by the recipe that made them."""

from __future__ import annotations

from mlflow.tracking import MlflowClient

RECIPE_TAG = "medtl.recipe"  # on a backbone's version: key of the settings that made it


def find_backbone(name: str, recipe: str) -> int | None:
    """The newest version of `name` that this recipe made; None where there is none."""
    found = MlflowClient().search_model_versions(f"name='{name}'")
    made = [int(each.version) for each in found if each.tags.get(RECIPE_TAG) == recipe]
    return max(made, default=None)


def mark_backbone(name: str, version: int, recipe: str) -> None:
    """Notes on a version which recipe made it."""
    MlflowClient().set_model_version_tag(name, str(version), RECIPE_TAG, recipe)
