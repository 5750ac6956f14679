"""The baselines of a study, fitted once for each backbone and share of the training split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from medtl.comparison.design import Cell
from medtl.comparison.runner import SharedResources
from medtl.errors import MedtlError
from medtl.evaluation.comparison_baselines import Beside, Reference, beside
from medtl.evaluation.model_comparison import Cases, CellResult
from medtl.pipeline.baselines import (
    BRIGHTNESS,
    FEATURES,
    FILES,
    by_brightness,
    by_features,
    by_files,
    without_files,
)
from medtl.training.learner import TransferLearner


def baselines_beside(
    bench: SharedResources,
    cells: Sequence[Cell],
    cell_results: Sequence[CellResult],
    cases: Cases,
    metric: str,
    seed: int,
) -> Beside:
    """Fits and scores the baselines of the cells that have an outcome.

    Features are those before the head, which the cells' passes have kept where there was room.
    Seeds whose backbone and share are the same have one baseline.

    Args:
        bench: of the study.
        cells: the study's cells, those of one backbone after each other.
        contenders: what they came to.
        cases: the test cases.
        metric: the score that is compared.
        seed: of the intervals.
    """
    finished = [each for each in cell_results if each.outcome is not None]
    asked = {_place(each.settings) for each in finished}
    found = _Found()
    for cell in cells:
        place = _place(dataclasses.asdict(cell))
        if place in asked:
            asked.remove(place)
            found.add(cell, bench.transfer(cell))
    arms: dict[str, list[tuple[Mapping[str, object], np.ndarray]]] = {}
    for each in finished:
        arms.setdefault(each.arm, []).append((each.settings, each.outcome.probabilities))
    return beside(
        cases.labels, cases.groups, cases.classes, found.references(), arms, metric, seed,
        found.notes,
    )  # fmt: skip


class _Found:
    """Baselines by what they are fitted on, and lines on those that are missing."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._by_key: dict[tuple[object, ...], Reference] = {}

    def add(self, cell: Cell, transfer: TransferLearner) -> None:
        """Fits the baselines of a cell's backbone and share, as far as they are not there yet."""
        share = b"" if transfer.rows is None else transfer.rows.tobytes()
        images = (cell.modality, cell.fraction, share)
        backbone = transfer.backbone
        seen_as = (backbone.digest(), backbone.preprocessing, cell.weights)
        self._fit(cell, transfer, FEATURES, by_features, (*images, *seen_as))
        self._fit(cell, transfer, BRIGHTNESS, by_brightness, images)
        if reason := without_files(transfer):
            line = f"baseline on {FILES}: none, {reason}"
            self.notes += [] if line in self.notes else [line]
        else:
            self._fit(cell, transfer, FILES, by_files, images)

    def references(self) -> list[Reference]:
        """The baselines by kind, each with a name of its own."""
        order = (FEATURES, BRIGHTNESS, FILES)
        each = sorted(self._by_key.values(), key=lambda found: order.index(found.kind))
        return [dataclasses.replace(found, name=_name(found, each)) for found in each]

    def _fit(
        self,
        cell: Cell,
        transfer: TransferLearner,
        kind: str,
        predicted: Callable[[TransferLearner], np.ndarray],
        fitted_on: tuple[object, ...],
    ) -> None:
        key = (kind, *fitted_on)
        known = self._by_key.get(key)
        if known is not None:
            seeds = tuple(dict.fromkeys((*known.seeds, cell.seed)))
            self._by_key[key] = dataclasses.replace(known, seeds=seeds)
            return
        try:
            probabilities = predicted(transfer)
        except MedtlError as error:
            self.notes.append(f"baseline on {kind}, {cell.architecture}: none, {error}")
            return
        own = (cell.architecture, cell.weights) if kind == FEATURES else ("", "")
        self._by_key[key] = Reference(
            "", kind, *own, cell.modality, cell.fraction, (cell.seed,), probabilities
        )


def _place(settings: Mapping[str, object]) -> tuple[object, ...]:
    """Settings of a cell that its baseline depends on."""
    names = ("architecture", "weights", "modality", "fraction", "seed")
    return tuple(settings[name] for name in names)


def _name(one: Reference, references: Sequence[Reference]) -> str:
    """Returns a name that tells a baseline from the others of its kind."""
    alike = [each for each in references if each.kind == one.kind]

    def differ(*names: str) -> bool:
        return len({tuple(getattr(each, name) for name in names) for each in alike}) > 1

    parts = [f"baseline: {one.kind}", one.architecture]
    if differ("architecture", "weights"):
        parts.append(one.weights)
    if differ("modality"):
        parts.append(one.modality or "all modalities")
    if differ("fraction"):
        parts.append(f"{100 * one.fraction:.4g} % of the training images")
    same = ("architecture", "weights", "modality", "fraction")
    own = tuple(getattr(one, name) for name in same)
    if sum(own == tuple(getattr(each, name) for name in same) for each in alike) > 1:
        parts.append(f"seed {', '.join(map(str, one.seeds))}")
    return ", ".join(filter(None, parts))
