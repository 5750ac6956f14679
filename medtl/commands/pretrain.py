"""Pretrain a backbone on any labelled source, and register it for transfer."""

from __future__ import annotations

from medtl.pipeline.pretraining import pretrained
from medtl.settings.training import PretrainSettings
from medtl.tracking.addresses import run_addresses


def pretrain(settings: PretrainSettings) -> None:
    """Pretrains and registers a backbone, and prints how to use it."""
    concluded, uri = pretrained(settings)
    print(concluded.summary())
    print(f"registered    {uri}; use it with weights={uri}")
    print("\n".join(run_addresses(concluded.model.run_id)))
