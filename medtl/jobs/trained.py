"""One model as its settings ask for it: of a network or a hybrid, in one stage or two."""

from __future__ import annotations

from collections.abc import Callable

from medtl.settings import TrainSettings
from medtl.tracking.journal import log_epoch
from medtl.training.checkpoints import Ends
from medtl.training.loop import Epoch
from medtl.training.transfer import Trained, Transfer


def trained(
    settings: TrainSettings,
    transfer: Transfer,
    cutoff: str,
    on_epoch: Callable[[Epoch], None] = log_epoch,
    ends: Ends | None = None,
) -> Trained:
    """The model that the settings ask for; its epochs are logged in the active run."""
    if settings.transfer == "hybrid":
        model = transfer.train_hybrid(cutoff)
        on_epoch(model.fit.best)
        return model
    recipe = transfer.recipe(settings.optimizer, settings.lr)
    if settings.schedule == "two_stage":
        return transfer.train_in_two_stages(cutoff, recipe, on_epoch, ends)
    return transfer.train(cutoff, recipe, on_epoch, ends)
