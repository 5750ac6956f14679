"""Backbones of a search: each with its data, weights and cut-offs."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import mlflow
from torch import nn

from medtl.cache import content_key
from medtl.data.dataset import Dataset
from medtl.errors import ParameterError
from medtl.networks.cutoffs import CutPoint, cut_points, resolve
from medtl.networks.registry import check_architecture
from medtl.pipeline.parameter_checks import check_places, outlined
from medtl.pipeline.pretraining import ensure_backbone
from medtl.pipeline.setup import Origin, noted_data, plain, study_name, training_data
from medtl.settings.fields import TRAINING, comma_list, key_values
from medtl.settings.search import TuneSettings
from medtl.training import epoch_budget
from medtl.training.learner import TransferLearner
from medtl.tuning.search_space import (
    AnyCandidate,
    AnySpace,
    HybridSpace,
    JointSpace,
    OneSpace,
    Space,
)

OPEN = 2  # networks in memory at a time, whatever their number in the search

OF_ANY_ARCHITECTURE = ("auto", "imagenet", "random")  # weights that several can have


@dataclass(frozen=True)
class PooledBackbone:
    """One network of a search, without the network itself."""

    settings: TuneSettings  # with this architecture only, and its own weights
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
        read: Callable[[TuneSettings, int, str], Dataset],
        read_more: Callable[[TuneSettings, int], Dataset],
    ) -> None:
        """Starts empty; see `open`."""
        self._settings = settings
        self._read, self._read_more = read, read_more
        self._datasets: dict[int, Dataset] = {}
        self._open: OrderedDict[str, TransferLearner] = OrderedDict()
        self._notes: dict[str, str] = {}
        self._backbone_pool: dict[str, PooledBackbone] = {}

    @classmethod
    def open(
        cls,
        settings: TuneSettings,
        read: Callable[[TuneSettings, int, str], Dataset] = noted_data,
        read_more: Callable[[TuneSettings, int], Dataset] = training_data,
    ) -> BackbonePool:
        """Opens every network once; may pretrain the backbone of the phantoms.

        Args:
            settings: of the search.
            read: reads the data at a size, and logs it in the active run.
            read_more: reads it at another size.

        Raises:
            ParameterError: a parameter is wrong (architecture, weights, data, cut-offs ...).
            MedtlError: the data or the weights cannot be used.
        """
        pool = cls(settings, read, read_more)
        for alone in [ensure_backbone(each) for each in _one_each(settings)]:
            entrant = pool._entered(alone)
            pool._backbone_pool[entrant.architecture] = entrant
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

    @property
    def all(self) -> tuple[PooledBackbone, ...]:
        """Networks in the order of the parameter."""
        return tuple(self._backbone_pool.values())

    @property
    def several(self) -> bool:
        """True if the architecture is searched too."""
        return len(self._settings.architectures) > 1

    @property
    def dataset(self) -> Dataset:
        """Data at one of its sizes; images, labels and splits are equal at all of them."""
        return next(iter(self._datasets.values()))

    @property
    def datasets(self) -> Mapping[int, Dataset]:
        """Data by size in pixels."""
        return self._datasets

    @property
    def space(self) -> AnySpace:
        """Search space."""
        if self.several:
            return JointSpace({each.architecture: each.space for each in self.all})
        return self.all[0].space

    @property
    def study_name(self) -> str:
        """Name of a new study: data, architectures and weights."""
        weights = self._settings.weights if self.several else self.all[0].weights
        return study_name(self.dataset.name, self._listed("architecture"), weights)

    @property
    def fingerprint(self) -> str:
        """Key of data, networks and settings; equal keys mean the same search."""
        parts = []
        for each in self.all:
            # weights by their digest: names differ between machines
            network = (each.architecture, each.backbone, each.space.cutoffs)
            parts += [key_values(each.settings, TRAINING), self.dataset.identity, network]
        return content_key(epoch_budget.FORMAT, *parts)

    @property
    def notes(self) -> dict[str, str]:
        """Decisions on caching activations, by cut-off."""
        notes = dict(self._notes)
        for architecture, transfer in self._open.items():
            notes |= self._notes_of(architecture, transfer)
        return notes

    def of(self, candidate: AnyCandidate) -> PooledBackbone:
        """Returns the network of a candidate."""
        return self._backbone_pool[candidate.architecture] if self.several else self.all[0]

    def transfer(self, entrant: PooledBackbone) -> TransferLearner:
        """Returns the learner of a network, opened again if it is not in memory."""
        if entrant.architecture not in self._open:
            self._admit(self._opened(entrant.settings), entrant.space)
        self._open.move_to_end(entrant.architecture)
        return self._open[entrant.architecture]

    def _entered(self, settings: TuneSettings) -> PooledBackbone:
        transfer = self._opened(settings)
        backbone = transfer.backbone
        architecture, network = backbone.architecture, backbone.network
        if self.several:
            settings = _with_own_cutoffs(settings, architecture, network)
        space = search_space(settings, architecture, network)
        self._admit(transfer, space)
        folder = f"search/{plain(architecture)}" if self.several else "search"
        digest = backbone.digest()
        return PooledBackbone(settings, architecture, backbone.weights, digest, space, folder)

    def _opened(self, settings: TuneSettings) -> TransferLearner:
        while len(self._open) >= OPEN:
            self._notes |= self._notes_of(*self._open.popitem(last=False))
        origin = Origin.of(settings)
        size = origin.image_size
        if not self._datasets:
            named = self._settings.architecture if self.several else origin.architecture
            self._datasets[size] = self._read(settings, size, named)
        elif size not in self._datasets:
            self._datasets[size] = self._read_more(settings, size)
        return origin.transfer(self._datasets[size], settings)

    def _admit(self, transfer: TransferLearner, space: OneSpace) -> None:
        network, architecture = transfer.backbone.network, transfer.backbone.architecture
        transfer.activation_cache.expect(
            resolve(network, architecture, name) for name in space.cutoffs
        )
        self._open[architecture] = transfer

    def _notes_of(self, architecture: str, transfer: TransferLearner) -> dict[str, str]:
        of = f" of {architecture}" if self.several else ""
        return {f"{name}{of}": note for name, note in transfer.activation_cache.notes.items()}

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
    for alone in each_alone:
        architecture, network = outlined(alone)
        if len(each_alone) > 1:
            alone = _with_own_cutoffs(alone, architecture, network)
        search_space(alone, architecture, network)
        had[architecture] = comma_list("cutoffs", alone.cutoffs)
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
    if settings.transfer == "hybrid":
        # the first layer has no features before it
        later = tuple(point.name for point in points if point.key > (0,))
        if not later:
            raise ParameterError("cutoffs", settings.cutoffs, "later layers where transfer=hybrid")
        return HybridSpace(settings.classifier, later)
    names = tuple(point.name for point in points)
    return Space(settings.optimizer_names, settings.lr_low, settings.lr_high, names)


def _one_each(settings: TuneSettings) -> list[TuneSettings]:
    """Returns the settings of a separate search for each architecture."""
    names = settings.architectures
    if len(names) > 1:
        for name in names:
            check_architecture(name)
        if settings.weights not in OF_ANY_ARCHITECTURE:
            raise ParameterError(
                "weights",
                settings.weights,
                f"one of {', '.join(OF_ANY_ARCHITECTURE)} where several architectures are searched",
            )
    return [dataclasses.replace(settings, architecture=name) for name in names]


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
