"""Simple baselines of a study: classifiers on frozen features, on brightness, on file properties.

Each is fitted once for each backbone and share of the training split.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from medtl.comparison.design import Cell
from medtl.comparison.runner import SharedResources
from medtl.errors import MedtlError
from medtl.evaluation.baseline_gains import (
    ComparisonBaselines,
    Reference,
    compare_with_baselines,
)
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
    resources: SharedResources,
    cells: Sequence[Cell],
    cell_results: Sequence[CellResult],
    cases: Cases,
    metric: str,
    seed: int,
) -> ComparisonBaselines:
    """Fits and scores the baselines of the cells that have an outcome.

    The features are those before the head, from the activation cache of the cells where they are
    in it. Seeds with the same backbone and share have one baseline.

    Args:
        resources: the resources of the study.
        cells: the cells of the study, those of one backbone after each other.
        cell_results: the results of the cells.
        cases: the test cases.
        metric: the metric that is compared.
        seed: seed of the intervals.
    """
    arms: dict[str, list[tuple[Mapping[str, object], np.ndarray]]] = {}
    needed = set()
    for each in cell_results:
        if each.outcome is not None:
            arms.setdefault(each.arm, []).append((each.settings, each.outcome.probabilities))
            needed.add(_dependencies(each.settings))
    fitted = _FittedBaselines(resources)
    for cell in cells:
        key = _dependencies(dataclasses.asdict(cell))
        if key in needed:
            needed.remove(key)
            fitted.add(cell, resources.transfer(cell))
    return compare_with_baselines(cases, fitted.references(), arms, metric, seed, fitted.notes)


class _FittedBaselines:
    """Baselines by the data and backbone they are fitted on; notes name those that are missing."""

    def __init__(self, resources: SharedResources) -> None:
        self.notes: list[str] = []
        self._resources = resources
        self._by_key: dict[tuple[object, ...], Reference] = {}

    def add(self, cell: Cell, transfer: TransferLearner) -> None:
        """Fits the baselines of a cell's backbone and share that are not fitted yet."""
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
        """Returns the baselines sorted by kind, each with a unique name."""
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
            probabilities = self._resources.predicted(cell, transfer, predicted)
        except MedtlError as error:
            self.notes.append(f"baseline on {kind}, {cell.architecture}: none, {error}")
            return
        own = (cell.architecture, cell.weights) if kind == FEATURES else ("", "")
        self._by_key[key] = Reference(
            "", kind, *own, cell.modality, cell.fraction, (cell.seed,), probabilities
        )


def _dependencies(settings: Mapping[str, object]) -> tuple[object, ...]:
    """Returns the settings of a cell that its baseline depends on."""
    names = ("architecture", "weights", "modality", "fraction", "seed")
    return tuple(settings[name] for name in names)


def _name(one: Reference, references: Sequence[Reference]) -> str:
    """Returns a name that is unique among the baselines."""
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
