"""Backbones of a search: each with its data, weights and cut-offs."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import mlflow
from torch import nn

from medtl.cache import content_key
from medtl.data.dataset import Dataset
from medtl.errors import MedtlError, ParameterError
from medtl.imaging.rendering import Rendering
from medtl.networks.cutoffs import CutPoint, cut_points, resolve
from medtl.networks.registry import check_architecture
from medtl.pipeline.parameter_checks import check_places, outlined
from medtl.pipeline.pretraining import ensure_backbone
from medtl.pipeline.setup import Origin, note_weights, noted_data, plain, study_name, training_data
from medtl.settings.fields import TRAINING, comma_list, key_values
from medtl.settings.search import TuneSettings
from medtl.settings.training import AUTO
from medtl.training import epoch_budget
from medtl.training.augmentation import SEARCHED
from medtl.training.classical_head import CLASSIFIER_SETTINGS
from medtl.training.learner import TransferLearner
from medtl.training.lora import last_attention
from medtl.tuning.search_space import (
    AnyCandidate,
    AnySpace,
    HybridSpace,
    JointSpace,
    NetworkName,
    OneSpace,
    Space,
)

OPEN = 2  # networks in memory at a time, whatever their number in the search

Made = TypeVar("Made")


@dataclass(frozen=True)
class PooledBackbone:
    """One network of a search, without the network itself."""

    settings: TuneSettings  # with this architecture and these weights only
    name: NetworkName
    architecture: str
    weights: str
    backbone: str  # digest of the weights
    space: OneSpace
    folder: str  # artifact folder of its own plots and tables


class BackbonePool:
    """All networks of a search on its data, at most `OPEN` of them in memory."""

    def __init__(
        self,
        settings: TuneSettings,
        read: Callable[[TuneSettings, Rendering, str], Dataset],
        read_more: Callable[[TuneSettings, Rendering], Dataset],
    ) -> None:
        """Starts empty; see `open`."""
        self._settings = settings
        self._read, self._read_more = read, read_more
        self._datasets: dict[Rendering, Dataset] = {}
        self._open: OrderedDict[NetworkName, TransferLearner] = OrderedDict()
        self._notes: dict[str, str] = {}
        self._loaded: dict[NetworkName, str] = {}  # which tensors of its file a network has
        self._backbone_pool: dict[NetworkName, PooledBackbone] = {}
        self.left_out: tuple[str, ...] = ()  # a line for each that does not fit, or is there twice

    @classmethod
    def open(
        cls,
        settings: TuneSettings,
        read: Callable[[TuneSettings, Rendering, str], Dataset] = noted_data,
        read_more: Callable[[TuneSettings, Rendering], Dataset] = training_data,
    ) -> BackbonePool:
        """Opens every network once; may pretrain the backbone of the phantoms.

        Args:
            settings: of the search.
            read: reads the data in a rendering, and logs it in the active run.
            read_more: reads it in another rendering.

        Raises:
            ParameterError: a parameter is wrong (architecture, weights, data, cut-offs ...).
            MedtlError: the data or the weights cannot be used.
        """
        pool = cls(settings, read, read_more)
        alone = [ensure_backbone(each) for each in _one_each(settings)]
        entered, left_out = _each_that_fits(alone, pool._entered)
        known: dict[tuple[str, str], PooledBackbone] = {}
        for entrant in entered:
            same = known.setdefault((entrant.architecture, entrant.backbone), entrant)
            if same is entrant:
                pool._backbone_pool[entrant.name] = entrant
            else:
                pool._open.pop(entrant.name, None)
                left_out += (f"{entrant.name}: the same weights as {same.name}",)
        pool.left_out = left_out
        return pool

    def note(self) -> None:
        """Sets the tags of the networks and the data in the active run."""
        mlflow.set_tags(
            {
                "medtl.architecture": self._listed("architecture"),
                "medtl.weights": self._listed("weights"),
                "medtl.data": self.dataset.fingerprint,
            }
        )
        note_weights(self._loaded.values())

    @property
    def all(self) -> tuple[PooledBackbone, ...]:
        """Networks in the order of the parameter."""
        return tuple(self._backbone_pool.values())

    @property
    def several(self) -> bool:
        """True if the architecture or the weights are searched too."""
        return self._settings.searches_architecture or self._settings.searches_weights

    @property
    def dataset(self) -> Dataset:
        """Data in one of its renderings; images, labels and splits are equal in all of them."""
        return next(iter(self._datasets.values()))

    @property
    def datasets(self) -> Mapping[Rendering, Dataset]:
        """Data by rendering."""
        return self._datasets

    @property
    def space(self) -> AnySpace:
        """Search space."""
        if self.several:
            return JointSpace({each.name: each.space for each in self.all})
        return self.all[0].space

    @property
    def study_name(self) -> str:
        """Name of a new study: data, architectures and weights."""
        if self._settings.searches_weights:
            weights = "-".join(dict.fromkeys(each.name.weights for each in self.all))
        else:
            weights = self._settings.weights if self.several else self.all[0].weights
        return study_name(self.dataset.name, self._listed("architecture"), weights)

    @property
    def fingerprint(self) -> str:
        """Key of data, networks and settings; equal keys mean the same search."""
        parts: list[object] = []
        for each in self.all:
            # weights by their digest: names differ between machines
            network = (each.architecture, each.backbone, each.space.cutoffs)
            parts += [key_values(each.settings, TRAINING), self.dataset.identity, network]
        if self._settings.transfer == "hybrid":
            parts.append(CLASSIFIER_SETTINGS[self._settings.classifier])
        return content_key(epoch_budget.FORMAT, *parts)

    @property
    def notes(self) -> dict[str, str]:
        """Decisions on caching activations, by cut-off."""
        notes = dict(self._notes)
        for name, transfer in self._open.items():
            notes |= self._notes_of(name, transfer)
        return notes

    def of(self, candidate: AnyCandidate) -> PooledBackbone:
        """Returns the network of a candidate."""
        return self._backbone_pool[candidate.network]

    def transfer(self, entrant: PooledBackbone) -> TransferLearner:
        """Returns the learner of a network, opened again if it is not in memory."""
        if entrant.name not in self._open:
            self._admit(entrant.name, self._opened(entrant.settings), entrant.space)
        self._open.move_to_end(entrant.name)
        return self._open[entrant.name]

    def _entered(self, settings: TuneSettings) -> PooledBackbone:
        transfer = self._opened(settings)
        backbone = transfer.backbone
        architecture, network = backbone.architecture, backbone.network
        if self.several:
            settings = _with_own_cutoffs(settings, architecture, network)
        space = search_space(settings, architecture, network)
        name = self._name(architecture, backbone.weights)
        self._admit(name, transfer, space)
        folder = f"search/{plain(str(name))}" if self.several else "search"
        digest = backbone.digest()
        self._loaded[name] = backbone.note
        return PooledBackbone(settings, name, architecture, backbone.weights, digest, space, folder)

    def _name(self, architecture: str, weights: str) -> NetworkName:
        """Names a network by what is searched; a file by its own name where no other has that."""
        settings = self._settings
        if _is_file(weights):
            files = [Path(each).name for each in settings.sources if _is_file(each)]
            own = Path(weights).name
            weights = own if files.count(own) == 1 else weights
        return NetworkName(
            architecture if settings.searches_architecture else "",
            weights if settings.searches_weights else "",
        )

    def _opened(self, settings: TuneSettings) -> TransferLearner:
        while len(self._open) >= OPEN:
            self._notes |= self._notes_of(*self._open.popitem(last=False))
        try:
            origin = Origin.of(settings)
        except MedtlError as error:
            raise _MisfitError(error) from error
        rendering = origin.rendering
        if not self._datasets:
            searched = self._settings.searches_architecture
            named = self._settings.architecture if searched else origin.architecture
            self._datasets[rendering] = self._read(settings, rendering, named)
        elif rendering not in self._datasets:
            self._datasets[rendering] = self._read_more(settings, rendering)
        return _started(origin, self._datasets[rendering], settings)

    def _admit(self, name: NetworkName, transfer: TransferLearner, space: OneSpace) -> None:
        network, architecture = transfer.backbone.network, transfer.backbone.architecture
        transfer.activation_cache.expect(
            resolve(network, architecture, name) for name in space.cutoffs
        )
        self._open[name] = transfer

    def _notes_of(self, name: NetworkName, transfer: TransferLearner) -> dict[str, str]:
        of = f" of {name}" if self.several else ""
        return {f"{place}{of}": note for place, note in transfer.activation_cache.notes.items()}

    def _listed(self, what: str) -> str:
        return ", ".join(dict.fromkeys(getattr(each, what) for each in self.all))


def check_search(settings: TuneSettings) -> tuple[str, ...]:
    """Refuses a search with settings that no data set could satisfy; returns its architectures.

    Raises:
        ParameterError: an invalid parameter.
        MedtlError: the weights are a model that does not exist.
    """
    check_places(settings)
    had: dict[str, tuple[str, ...]] = {}
    each_alone = _one_each(settings)

    def check(alone: TuneSettings) -> None:
        try:
            architecture, network = outlined(alone)
        except MedtlError as error:
            raise _MisfitError(error) from error
        if len(each_alone) > 1:
            alone = _with_own_cutoffs(alone, architecture, network)
        search_space(alone, architecture, network)
        had[architecture] = comma_list("cutoffs", alone.cutoffs)

    _each_that_fits(each_alone, check)
    for name in comma_list("cutoffs", settings.cutoffs):
        if not any(name in own for own in had.values()):
            raise ParameterError("cutoffs", name, f"layers of at least one of {', '.join(had)}")
    return tuple(had)


def search_space(settings: TuneSettings, architecture: str, network: nn.Module) -> OneSpace:
    """Builds the search space of one network, and checks every named cut-off.

    Raises:
        ParameterError: the network lacks a cut-off.
    """
    points: Sequence[CutPoint]
    if settings.cutoffs == "blocks":
        points = cut_points(network, "blocks")
    elif settings.cutoffs == "layers":
        points = cut_points(network, "layers")
    else:
        named = comma_list("cutoffs", settings.cutoffs)
        try:
            resolved = [resolve(network, architecture, name) for name in named]
        except ParameterError as error:
            raise ParameterError("cutoffs", error.value, error.allowed) from error
        # two names of one position (a block and its first layer) are one cut
        at = {point.key: point for point in resolved}
        points = [at[key] for key in sorted(at)]
    if settings.transfer == "lora":
        last = last_attention(network)
        points = [point for point in points if point.position <= last]
        if not points:
            allowed = f"finetune: {architecture} has no attention from {settings.cutoffs} on"
            raise ParameterError("transfer", "lora", allowed)
    if settings.transfer == "hybrid":
        # the first layer has no features before it
        later = tuple(point.name for point in points if point.key > (0,))
        if not later:
            raise ParameterError("cutoffs", settings.cutoffs, "later layers where transfer=hybrid")
        return HybridSpace(settings.classifier, later)
    names = tuple(point.name for point in points)
    augments = SEARCHED if settings.augment == AUTO else ()
    return Space(settings.optimizer_names, settings.lr_low, settings.lr_high, names, augments)


def _one_each(settings: TuneSettings) -> list[TuneSettings]:
    """Returns the settings of a separate search for each architecture with each weights."""
    names = settings.architectures
    if len(names) > 1:
        for name in names:
            check_architecture(name)
    return [
        dataclasses.replace(settings, architecture=name, weights=source)
        for name in names
        for source in settings.sources
    ]


class _MisfitError(MedtlError):
    """An architecture cannot have given weights."""

    def __init__(self, reason: MedtlError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _each_that_fits(
    each_alone: Sequence[TuneSettings], attempt: Callable[[TuneSettings], Made]
) -> tuple[list[Made], tuple[str, ...]]:
    """Attempts each architecture with each weights, and leaves out those that do not fit.

    Returns the results, and a line for each that is left out.

    Raises:
        MedtlError: an architecture fits none of the weights, or weights fit none of the
            architectures.
    """
    made: list[Made] = []
    misfits: list[tuple[TuneSettings, _MisfitError]] = []
    used: set[tuple[str, str]] = set()
    for alone in each_alone:
        try:
            made.append(attempt(alone))
        except _MisfitError as error:
            misfits.append((alone, error))
        else:
            used |= {("architecture", alone.architecture), ("weights", alone.weights)}
    for alone, misfit in misfits:
        if not {("architecture", alone.architecture), ("weights", alone.weights)} <= used:
            raise misfit.reason
    return made, tuple(f"{a.architecture} with weights {a.weights}: {each}" for a, each in misfits)


def _started(origin: Origin, dataset: Dataset, settings: TuneSettings) -> TransferLearner:
    """Returns the learner of a network.

    Raises:
        _MisfitError: the weights of a file or a model do not fit it.
        MedtlError: published weights are not to be had.
    """
    try:
        return origin.transfer(dataset, settings)
    except ParameterError:
        raise
    except MedtlError as error:
        if _is_file(origin.weights) or origin.source is not None:
            raise _MisfitError(error) from error
        raise


def _is_file(weights: str) -> bool:
    return weights not in ("auto", "imagenet", "random") and Path(weights).expanduser().is_file()


def _with_own_cutoffs(
    settings: TuneSettings, architecture: str, network: nn.Module
) -> TuneSettings:
    """Returns the settings with only those named cut-offs that this network has.

    Raises:
        ParameterError: it has none of them.
    """
    if settings.cutoffs in ("blocks", "layers"):
        return settings
    named = comma_list("cutoffs", settings.cutoffs)
    own, reason = [], ""
    for name in named:
        try:
            resolve(network, architecture, name)
            own.append(name)
        except ParameterError as error:
            reason = error.allowed
    if not own:
        raise ParameterError("cutoffs", settings.cutoffs, f"of {architecture}, {reason}")
    return dataclasses.replace(settings, cutoffs=",".join(own))
