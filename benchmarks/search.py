"""Time of the search of `tune` until it reaches the best score of ten plain trials.

On each data set and for each seed, the plain loop trains the ten trials. The search then runs until
a trial reaches the best validation AUROC of the ten. It starts no trial later than the seconds
that the ten took. The seed draws the images, the search, and heads and orders of the plain loop.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import pandas as pd

from benchmarks.side_process import Side
from benchmarks.subset import SHIFTED, subset_of
from benchmarks.trials import NETWORK, TEN, Found, Outcome, Trial


@dataclass(frozen=True)
class Race:
    """A plain list and a search on the same images."""

    target: float  # the list's best validation AUROC
    until: float  # seconds of the list until it was reached
    whole: float  # seconds of the whole list
    found: Found

    @property
    def reached(self) -> bool:
        """True if the search reached the target."""
        return self.found.best >= self.target

    @property
    def seconds(self) -> float:
        """Seconds of the search until the target; infinite if it was not reached."""
        return self.found.seconds if self.reached else math.inf


@click.command()
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    multiple=True,
    help="CSV with the columns path, label, patient (of a split only train), or a folder "
    "CLASS/...; repeatable",
)
@click.option("--seeds", default="0,1,2,3,4", help="comma list")
@click.option("--images", default=300, help="training images")
@click.option("--valid", default=150, help="validation images")
@click.option("--size", default=224, help="side of the images in pixels")
@click.option("--epochs", default=10, help="epochs of a trial of the plain list")
@click.option("--search-epochs", default=0, help="most epochs of a trial of the search; 0 as tune")
@click.option(
    "--pruner",
    type=click.Choice(("median", "hyperband", "none")),
    default="median",
    help="of the search, as of tune",
)
@click.option(
    "--plain",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON file that keeps the plain lists: one of equal images, seed, size and epochs is not "
    "run again; only for use on one machine",
)
def search(
    data: tuple[Path, ...],
    seeds: str,
    images: int,
    valid: int,
    size: int,
    epochs: int,
    search_epochs: int,
    pruner: str,
    plain: Path | None,
) -> None:
    """Times the search of tune until it reaches the best score of ten plain trials."""
    races: list[Race] = []
    for source in data:
        name = source.parent.name if source.is_file() else source.name
        own = []
        print(name)
        for seed in [int(each) for each in seeds.split(",")]:
            with subset_of(source, images, valid, seed=seed) as (folder, cache):
                if copies := _shifted(folder):
                    print(f"  note: {copies} of {images} training images are shifted copies")
                shared = {**NETWORK, "size": size, "seed": seed}
                listed = plain_list(folder, TEN, epochs, plain, **shared)
                whole = sum(outcome.total for outcome in listed)
                target = max(outcome.best for outcome in listed)
                with Side("medtl", cache, folder=str(folder), **shared) as side:
                    found = side.search_until(target, search_epochs, whole, pruner)
            race = Race(target, seconds_until(listed, target), whole, found)
            own.append(race)
            print(f"  seed {seed}: {search_line(target, race.until, found)}", flush=True)
        print(f"  {spread_line(own)}", flush=True)
        races += own
    if len(data) > 1:
        print(f"all: {spread_line(races)}")


def plain_list(
    folder: Path, trials: tuple[Trial, ...], epochs: int, kept: Path | None, **settings: object
) -> list[Outcome]:
    """Runs the trials of the plain loop, or returns those of an equal list from a JSON file."""
    key = list_key(folder, trials, epochs, settings)
    known = json.loads(kept.read_text()) if kept is not None and kept.exists() else {}
    if key in known:
        return [Outcome(**each) for each in known[key]]
    with Side("plain", folder.parent / "none", folder=str(folder), **settings) as side:
        outcomes = [side.run(trial, epochs) for trial in trials]
    if kept is not None:
        known[key] = [asdict(outcome) for outcome in outcomes]
        unfinished = kept.with_name(f"{kept.name}.unfinished")
        unfinished.write_text(json.dumps(known))
        os.replace(unfinished, kept)
    return outcomes


def list_key(
    folder: Path, trials: tuple[Trial, ...], epochs: int, settings: dict[str, object]
) -> str:
    """Returns a hash of the images, trials, epochs and settings of a list."""
    files = hashlib.sha256()
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        files.update(file.relative_to(folder).as_posix().encode())
        files.update(file.read_bytes())
    asked = [files.hexdigest(), [asdict(trial) for trial in trials], epochs, settings]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:24]


def search_line(target: float, until: float, found: Found) -> str:
    """Compares a search with a plain list, whose best score is `target` after `until` seconds."""
    if found.best >= target:
        end = f"{found.seconds:.0f} s, {until / found.seconds:.1f} times"
    else:
        end = f"not reached in {found.seconds:.0f} s, at best {found.best:.3f}"
    failed = f", {found.failed} failed" if found.failed else ""
    return (
        f"the plain list's best score, AUROC {target:.3f}, after {until:.0f} s; by the search "
        f"{end}, {found.trials} trials begun{failed} ({found.way})"
    )


def spread_line(races: list[Race]) -> str:
    """Summarises races by medians and ranges; a race without success counts as infinite."""
    reached = [race for race in races if race.reached]
    short = max((race.target - race.found.best for race in races), default=0.0)
    missed = f", at most {short:.3f} short" if len(reached) < len(races) else ""
    ratios = [race.until / race.seconds for race in races]
    return (
        f"reached {len(reached)} of {len(races)}{missed}; plain list "
        f"{_spread([race.until for race in races])} s to its best, "
        f"{_spread([race.whole for race in races])} s in all; search "
        f"{_spread([race.seconds for race in races])} s, {_spread(ratios, 1)} times, "
        f"{_spread([race.found.trials for race in reached])} trials where reached"
    )


def seconds_until(outcomes: list[Outcome], score: float) -> float:
    """Returns the seconds until a score is reached, one trial after the other."""
    passed = 0.0
    for outcome in outcomes:
        for value, seconds in zip(outcome.scores, outcome.seconds, strict=True):
            if value >= score:
                return passed + seconds
        passed += outcome.total
    raise ValueError(f"{score} is never reached")


def _spread(values: list[float], digits: int = 0) -> str:
    """Writes the median and the range."""
    if not values:
        return "-"
    low, middle, high = (
        f"{value:.{digits}f}" if math.isfinite(value) else "never"
        for value in (min(values), float(np.median(values)), max(values))
    )
    return f"{middle} ({low} to {high})"


def _shifted(folder: Path) -> int:
    names = pd.read_csv(folder / "labels.csv")["path"]
    return int(names.str.contains(f"/{SHIFTED}").sum())
