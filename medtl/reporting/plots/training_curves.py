"""Learning curves: losses and validation scores over the epochs."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medtl.reporting.plots.style import GRID, colour, finished, key, plain, sheet

LOSSES = {"train_loss": "training", "valid_loss": "validation"}
SCORES = {"valid_auroc": "AUROC", "valid_accuracy": "accuracy", "valid_f1": "F1"}


def learning_curves(history: pd.DataFrame, best_epoch: int) -> Figure:
    """Draws losses (left) and validation scores (right) over the epochs, the kept one marked.

    `history` has a row an epoch: `epoch` (from 1) and any of `train_loss`, `valid_loss`,
    `valid_accuracy`, `valid_auroc`, `valid_f1`. The weights of `best_epoch` were kept.
    """
    kept = history.loc[history["epoch"] == best_epoch]
    figure = sheet(
        "Learning curves",
        _subtitle(len(history), best_epoch),
        width=8.0,
        height=4.2,
    )
    panels = zip(figure.subplots(1, 2), (LOSSES, SCORES), ("Loss", "Validation score"), strict=True)
    for axes, names, up in panels:
        plain(axes, "Epoch", up)
        axes.axvline(best_epoch, color=GRID, linewidth=6, zorder=0)
        for index, (column, name) in enumerate(names.items()):
            if column not in history:
                continue
            line = {"color": colour(index), "linewidth": 1.8}
            axes.plot(history["epoch"], history[column], label=name, **line)
            axes.plot(kept["epoch"], kept[column], "o", markersize=6, color=colour(index))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.03)
        if len(history) == 1:
            axes.set_xticks(history["epoch"])
        key(axes, "best")
    return finished(figure)


def _subtitle(epochs: int, best_epoch: int) -> str:
    """Describes the epochs; a head that is solved without epochs is recorded as one."""
    if epochs == 1:
        return "one epoch, or a head that was solved without epochs"
    return f"{epochs} epochs; the weights of epoch {best_epoch} were kept"


def repeated_curves(history: pd.DataFrame, what: str) -> Figure:
    """Draws the training loss (left) and the validation AUROC (right) of several trainings.

    `history` has a row an epoch of a training: the training in the column `what` (`fold`, `seed`),
    and the columns of `learning_curves`.
    """
    trainings = history.groupby(what, sort=False)
    figure = sheet(
        "Learning curves", f"{len(trainings)} trainings, one a {what}", width=8.0, height=4.2
    )
    panels = {"train_loss": "Training loss", "valid_auroc": "Validation AUROC"}
    for axes, (column, up) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        plain(axes, "Epoch", up)
        for index, (name, own) in enumerate(trainings):
            line = {"color": colour(index), "linewidth": 1.6, "marker": "o", "markersize": 3}
            axes.plot(own["epoch"], own[column], label=f"{what} {name}", **line)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.03)
        key(axes, "best")
    return finished(figure)
