"""Ten trials on all sides in turn: seconds, scores and ratios.

The peers are the plain loop, and the expert's loop if Lightning is installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path

import click
import numpy as np

from benchmarks.search import search_line, seconds_until
from benchmarks.side_process import Side
from benchmarks.subset import subset_of
from benchmarks.trials import NETWORK, TEN, Outcome
from medtl.training.device import resolve_device, resolve_precision

PEERS = ("plain", "expert")
MISSING = "the expert's loop is left out: it needs Lightning; pip install 'medtl[benchmarks]'"


@click.command()
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="CSV with the columns path, label, patient (of a split only train), or a folder CLASS/...",
)
@click.option("--images", default=300, help="training images")
@click.option("--valid", default=150, help="validation images")
@click.option("--size", default=224, help="side of the images in pixels")
@click.option("--epochs", default=10, help="epochs a trial, of every side")
@click.option("--patience", default=4, help="of medtl; the peers train all their epochs")
@click.option(
    "--precision",
    type=click.Choice(("auto", "float32", "bf16")),
    default="auto",
    help="of the expert's loop and of medtl; auto is bf16 where the processor has it; the plain "
    "loop is float32",
)
@click.option("--seed", default=0, help="draws images, new heads, orders and the search")
@click.option("--search-epochs", default=0, help="most epochs of a trial of the search; 0 as tune")
def trials(
    data: Path,
    images: int,
    valid: int,
    size: int,
    epochs: int,
    patience: int,
    precision: str,
    seed: int,
    search_epochs: int,
) -> None:
    """Times ten trials of MobileNetV2, and the search until it has the best plain score."""
    precision = resolve_precision(precision, resolve_device("auto"))
    own: dict[str, dict[str, object]] = {
        "plain": {},
        "expert": {"precision": precision},
        "medtl": {"precision": precision, "patience": patience},
    }
    if importlib.util.find_spec("lightning") is None:
        print(MISSING)
        del own["expert"]
    with subset_of(data, images, valid, seed=seed) as (folder, cache):
        shared: dict[str, object] = {"folder": str(folder), "size": size, "seed": seed, **NETWORK}
        with contextlib.ExitStack() as opened:
            sides = {
                kind: opened.enter_context(Side(kind, cache / kind, **shared, **settings))
                for kind, settings in own.items()
            }
            ready = {kind: side.prepare() for kind, side in sides.items()}
            sides["medtl"].expect([trial.cutoff for trial in TEN])
            outcomes: dict[str, list[Outcome]] = {kind: [] for kind in sides}
            print(_heading(list(sides), precision))
            for trial in TEN:
                for kind, side in sides.items():
                    outcomes[kind].append(side.run(trial, epochs))
                print(_row(str(trial), {kind: runs[-1] for kind, runs in outcomes.items()}))
            for line in summary(outcomes, ready["medtl"]):
                print(line)
            for kind, side in sides.items():
                print(f"{kind}: peak memory {side.peak_gb():.2f} GB, disk {side.disk_gb():.2f} GB")
        plain = outcomes["plain"]
        target = max(outcome.best for outcome in plain)
        shared["precision"] = precision
        with Side("medtl", cache / "search", **shared) as searching:
            limit = sum(outcome.total for outcome in plain)
            found = searching.search_until(target, search_epochs, limit, "median")
        print(search_line(target, seconds_until(plain, target), found))


def summary(outcomes: dict[str, list[Outcome]], ready: float) -> list[str]:
    """Compares medtl with each peer over all trials; `ready` is its decoding time in seconds."""
    ours = outcomes["medtl"]
    own_total = ready + sum(outcome.total for outcome in ours)
    own_epochs = sum(outcome.total / len(outcome.scores) for outcome in ours)
    lines = [
        f"the whole list: medtl {own_total:.0f} s, {ready:.1f} s of them decoding; "
        f"AUROC mean {_mean(ours):.3f}, best {_best(ours):.3f}"
    ]
    for kind in (each for each in PEERS if each in outcomes):
        peer = outcomes[kind]
        total = sum(outcome.total for outcome in peer)
        epochs = sum(outcome.total / len(outcome.scores) for outcome in peer)
        lines.append(
            f"{kind} {total:.0f} s, {total / own_total:.1f} times medtl's, an epoch of each of the "
            f"ten {epochs / own_epochs:.1f} times; AUROC mean {_mean(peer):.3f}, best "
            f"{_best(peer):.3f}; medtl's mean {_mean(ours) - _mean(peer):+.3f}"
        )
    return lines


def _heading(kinds: list[str], precision: str) -> str:
    columns = "".join(f"{kind:>9}{'AUROC':>7}" for kind in kinds)
    ratios = "".join(f"{'x ' + kind:>9}" for kind in PEERS if kind in kinds)
    return f"{'medtl and expert in ' + precision:<31}{columns}{'epochs':>7}{ratios}"


def _row(name: str, outcome: dict[str, Outcome]) -> str:
    ours = outcome["medtl"]
    columns = "".join(f"{each.total:>7.1f} s{each.best:>7.3f}" for each in outcome.values())
    ratios = "".join(f"{outcome[k].total / ours.total:>9.1f}" for k in PEERS if k in outcome)
    return f"{name:<31}{columns}{len(ours.scores):>7}{ratios}"


def _mean(outcomes: list[Outcome]) -> float:
    return float(np.mean([outcome.best for outcome in outcomes]))


def _best(outcomes: list[Outcome]) -> float:
    return max(outcome.best for outcome in outcomes)
