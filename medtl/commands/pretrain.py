"""Pretrain a backbone on any labelled source, and register it for transfer."""

from __future__ import annotations

from medtl.pipeline.pretraining import pretrained
from medtl.settings.training import PretrainSettings


def pretrain(settings: PretrainSettings) -> None:
    """Pretrains and registers a backbone, and says how to use it."""
    concluded, uri = pretrained(settings)
    print(concluded.summary())
    print(f"registered    {uri}; use it with weights={uri}")
