"""Runs the cells of a comparison on shared data, backbones and activations."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from medtl.cache import content_key
from medtl.comparison.cell_runs import KEY_TAG, finished_cell, log_outcome
from medtl.comparison.design import PRETRAINED_ON, Cell, Plan, arm, cell_names
from medtl.comparison.learning_rates import ChosenRates, chosen_rate, trained_at_best_rate
from medtl.data.dataset import Dataset
from medtl.data.manifest import EMBEDDED
from medtl.data.splits import nested_share
from medtl.errors import MedtlError, ParameterError
from medtl.evaluation.calibration import fit_temperature
from medtl.evaluation.confidence_intervals import mean_score, measure
from medtl.evaluation.jackknife import Interval
from medtl.evaluation.model_comparison import Cases, CellResult, Outcome, TriedRate
from medtl.imaging.rendering import Rendering
from medtl.inference.decisions import calibrated
from medtl.networks.cutoffs import CutPoint, resolve
from medtl.networks.flops import operations
from medtl.networks.pretrained import Backbone
from medtl.networks.registry import image_network
from medtl.pipeline.pretraining import backbone_of, drawn_down, ensure_backbone
from medtl.pipeline.run_logging import history, log_halved
from medtl.pipeline.setup import Origin, fit_model, training_data
from medtl.settings.comparison import CompareSettings
from medtl.settings.fields import TRAINING, key_values
from medtl.settings.training import LearningSettings, ModelSettings, PretrainSettings, TrainSettings
from medtl.tracking.runs import nested_run
from medtl.training import epoch_budget
from medtl.training.activation_cache import ActivationCache
from medtl.training.checkpoints import CheckpointHold
from medtl.training.learner import Trained, TransferLearner

# Settings that the key has from the cell; the seed of the settings is that of splits and views.
OF_CELL = frozenset(field.name for field in dataclasses.fields(Cell)) - {"seed"}


class SharedResources:
    """Data sets, backbones and activations shared by the cells of a study."""

    def __init__(
        self,
        settings: CompareSettings,
        plan: Plan,
        read: Callable[[LearningSettings, Rendering], Dataset] = training_data,
    ) -> None:
        """`read` returns the data set of the settings in a rendering."""
        self._settings, self._plan, self._read = settings, plan, read
        self._datasets: dict[tuple[Rendering, str], Dataset] = {}
        self._origins: dict[tuple[str, str], Origin | MedtlError] = {}
        self._operations: dict[tuple[str, int, tuple[str, ...], int], int] = {}
        self._backbone: tuple[object, Backbone] | None = None
        self._activation_cache: tuple[object, ActivationCache] | None = None
        self.notes: list[str] = []  # on the sources of pretraining

    def dataset(self, cells: Iterable[Cell]) -> Dataset:
        """Returns the data set in the rendering of the first cell whose backbone is available.

        Raises:
            MedtlError: the data cannot be trained on, or no cell has a backbone.
        """
        reason: MedtlError | None = None
        for cell in cells:
            try:
                return self.data(self.origin(cell).rendering)
            except MedtlError as error:
                if not isinstance(self._origins.get((cell.architecture, cell.weights)), MedtlError):
                    raise  # the data is the same for all cells
                reason = error
        assert reason is not None
        raise reason

    def origin(self, cell: Cell) -> Origin:
        """Returns the origin of the cell's backbone, which is pretrained first if it has to be.

        Raises:
            MedtlError: it is not available; the same for all cells of this architecture and
                weights.
        """
        key = (cell.architecture, cell.weights)
        if key not in self._origins:
            try:
                self._origins[key] = Origin.of(self._with_weights(self.train_settings(cell)))
            except MedtlError as error:
                self._origins[key] = error
        found = self._origins[key]
        if isinstance(found, MedtlError):
            raise found
        return found

    def transfer(self, cell: Cell) -> TransferLearner:
        """Returns the learner of the cell: its backbone on its share of the training split.

        Raises:
            MedtlError: the backbone is not available.
        """
        origin = self.origin(cell)
        dataset = self.data(origin.rendering, cell.modality)
        backbone = self._made(cell, origin, dataset)
        rows = None
        if cell.fraction < 1:
            train = dataset.splits["train"]
            labels, groups = dataset.labels[train], dataset.groups[train]
            rows = nested_share(labels, groups, cell.fraction, cell.seed)
        seen_as = (backbone.digest(), backbone.preprocessing, dataset.fingerprint)
        known = (
            self._activation_cache[1]
            if self._activation_cache and self._activation_cache[0] == seen_as
            else None
        )
        transfer = TransferLearner(
            backbone, dataset, self.train_settings(cell), rows, self._settings.seed, known
        )
        if known is None:
            self._activation_cache = (seen_as, transfer.activation_cache)
            transfer.activation_cache.expect(self._points(cell, backbone))
        return transfer

    def key(self, cell: Cell, transfer: TransferLearner) -> str:
        """Returns a key of everything that the cell's results depend on."""
        # the digest identifies the weights independently of their file
        own = dataclasses.asdict(dataclasses.replace(cell, series="", weights=""))
        if not cell.rates:
            del own["rates"]
        shared = key_values(self._settings, TRAINING, declared_by=LearningSettings)
        others = {name: value for name, value in shared.items() if name not in OF_CELL}
        backbone = transfer.backbone
        return content_key(
            self._plan.study,
            epoch_budget.FORMAT,
            own,
            {**others, "precision": transfer.precision},
            transfer.dataset.identity,
            (backbone.digest(), backbone.preprocessing.key),
        )

    def run(
        self, cell: Cell, transfer: TransferLearner, run_id: str, ends: CheckpointHold
    ) -> Outcome:
        """Trains the cell, logs its epochs in the active run, and scores the test split once.

        `ends` holds the checkpoints until that run has ended.
        """
        backbone = transfer.backbone
        point = resolve(backbone.network, backbone.architecture, cell.cutoff)
        settings = self.train_settings(cell)
        tried: tuple[TriedRate, ...] = ()
        started = time.perf_counter()
        if cell.rates:
            model, tried = trained_at_best_rate(settings, cell.rates, transfer, point.name, ends)
        else:
            model = fit_model(settings, transfer, point.name, ends=ends)
        lr = chosen_rate(tried).lr if tried else cell.lr
        # leaves out the trainings at other rates, so that the seconds of repeats are comparable
        started += sum(each.seconds for each in tried if each.lr != lr)
        log_halved(model.halved)
        labels = transfer.labels("valid")
        temperature = fit_temperature(model.fit.valid_logits, labels)
        probabilities = calibrated(transfer.logits(model, "test"), temperature)
        seconds = time.perf_counter() - started
        groups = transfer.dataset.groups[transfer.dataset.splits["valid"]]
        valid = calibrated(model.fit.valid_logits, temperature)
        interval = mean_score(labels, [valid], groups, "auroc", self._settings.seed)
        cost = self._cost(transfer, model)
        return Outcome(
            probabilities=probabilities,
            history=history(model.fit),
            valid_auroc=model.fit.best.valid_auroc,
            valid_error=(interval.high - interval.low) / (2 * 1.96),
            best_epoch=model.fit.best.number,
            seconds=seconds,
            place=point.position,
            run_id=run_id,
            lr=0.0 if model.solved is not None else lr,
            rates=tried,
            trained_parameters=cost.parameters,
            trained_flops=cost.flops,
            trained_share=cost.share,
        )

    def train_settings(self, cell: Cell) -> TrainSettings:
        """Returns the settings of `train` for this cell on all training images.

        Of several learning rates they have the first.
        """
        shared = {
            field.name: getattr(self._settings, field.name)
            for field in dataclasses.fields(LearningSettings)
        }
        own = {
            "architecture": cell.architecture,
            "weights": cell.weights,
            "transfer": cell.transfer,
            "augment": cell.augment,
            "seed": cell.seed,
            "cutoff": cell.cutoff,
            "schedule": cell.schedule,
            "hidden": cell.hidden,
            "image_size": self._settings.image_size or self._plan.image_size,
        }
        if cell.transfer == "hybrid":
            own |= {"classifier": cell.classifier, "layer_decay": 1.0}
        else:
            lr = cell.rates[0] if cell.rates else cell.lr
            own |= {"classifier": "logistic", "optimizer": cell.optimizer, "lr": lr}
        return TrainSettings(**shared | own)

    def _with_weights(self, settings: TrainSettings) -> ModelSettings:
        """Pretrains the weights if they have to be, and returns the settings with their URI."""
        if not settings.weights.startswith(PRETRAINED_ON):
            return ensure_backbone(settings)
        source = PretrainSettings(
            data=settings.weights.removeprefix(PRETRAINED_ON),
            architecture=image_network(settings.architecture) or settings.architecture,
            image_size=settings.image_size,
            precision=settings.precision,
            device=settings.device,
        )
        self._check_source(source)
        if self._plan.equal_sources:
            source = dataclasses.replace(source, train_images=self._source_images(source))
        return dataclasses.replace(settings, weights=backbone_of(source))

    def _source_images(self, source: PretrainSettings) -> int:
        """Returns the number of training images to draw of a source; 0 for all.

        It is that of the smallest source of the study, so that a larger one has no advantage.
        Adds a note on the draw.
        """
        sources: dict[str, Dataset] = {}
        starts = dict.fromkeys(cell.weights for cell in self._plan.cells)
        for start in starts:
            if start.startswith(PRETRAINED_ON):
                each = dataclasses.replace(source, data=start.removeprefix(PRETRAINED_ON))
                with contextlib.suppress(MedtlError):  # its own cells report it
                    sources[each.data] = training_data(each, Origin.of(each).rendering)
        own = sources[source.data]
        fewest = min(len(dataset.splits["train"]) for dataset in sources.values())
        given = [
            start for start in starts if start != "random" and not start.startswith(PRETRAINED_ON)
        ]
        if given:
            self._note(
                f"the weights {', '.join(given)} may come from more images than the others: only "
                "data sets are drawn to equal sizes"
            )
        count = len(own.splits["train"])
        if count == fewest:
            return 0
        drawn = len(drawn_down(own, fewest, source.seed))
        self._note(
            f"pretraining uses {drawn:,} of the {count:,} training images of {own.name}, drawn by "
            f"patient and equally from each class: the smallest source has {fewest:,}"
        )
        return fewest

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)

    def _check_source(self, source: PretrainSettings) -> None:
        """Raises `MedtlError` if a source contains validation or test images of the target."""
        if source.data in EMBEDDED:
            return
        rendering = Origin.of(source).rendering
        target = self.data(rendering)
        judged = np.concatenate([target.splits[split] for split in ("valid", "test")])
        known = set(training_data(source, rendering).frame["content"])
        shared = known & set(target.frame["content"].iloc[judged])
        if shared:
            raise MedtlError(
                f"{source.data} contains {len(shared)} of the validation and test images of "
                f"{target.name}: a backbone pretrained on them would be scored on images it was "
                "trained on; remove them from the source"
            )

    def data(self, rendering: Rendering, modality: str = "") -> Dataset:
        """Returns the data set in a rendering, with all its modalities or one.

        Raises:
            MedtlError: it cannot be trained on.
        """
        key = (rendering, modality)
        if key not in self._datasets:
            self._datasets[key] = (
                self.data(rendering).only(modality)
                if modality
                else self._read(self._settings, rendering)
            )
        return self._datasets[key]

    def _made(self, cell: Cell, origin: Origin, dataset: Dataset) -> Backbone:
        key = (cell.architecture, cell.weights, cell.modality, cell.seed, cell.hidden)
        if self._backbone is None or self._backbone[0] != key:
            self._backbone = (key, origin.backbone(dataset, cell.seed, cell.hidden))
        return self._backbone[1]

    def _points(self, cell: Cell, backbone: Backbone) -> Iterator[CutPoint]:
        """Yields the cut points of all cells of this backbone; unknown ones are left out."""
        for other in self._plan.cells:
            if (other.architecture, other.weights) == (cell.architecture, cell.weights):
                try:
                    yield resolve(backbone.network, backbone.architecture, other.cutoff)
                except ParameterError:
                    continue

    def _cost(self, transfer: TransferLearner, model: Trained) -> _TrainingCost:
        """Computes the training cost; a hybrid has no gradient through the network."""
        if model.tail is not None:
            return _TrainingCost(parameters=0, flops=0, share=0.0)
        backbone = transfer.backbone
        size = transfer.image_size
        key = (backbone.architecture, size, transfer.dataset.modalities, transfer.settings.hidden)
        if key not in self._operations:
            images = (3 * max(1, len(transfer.dataset.modalities)), size, size)
            self._operations[key] = operations(backbone.network, [images])
        trained_flops = operations(model.cut.suffix, model.cut.shapes)
        return _TrainingCost(
            parameters=sum(each.numel() for each in model.cut.suffix.parameters()),
            flops=trained_flops,
            share=trained_flops / self._operations[key],
        )


@dataclass(frozen=True)
class _TrainingCost:
    """Size of the trained part of a network.

    Attributes:
        parameters: number of trained weights.
        flops: operations of a forward pass after the cut, for one image.
        share: their share of the operations of the whole network, 0 to 1.
    """

    parameters: int
    flops: int
    share: float


def test_cases(dataset: Dataset) -> tuple[Cases, list[str]]:
    """Returns the test cases, and their names: hashes of the contents of their images."""
    test = dataset.splits["test"]
    cases = Cases(dataset.labels[test], dataset.groups[test], dataset.classes, dataset.unit)
    return cases, np.asarray(dataset.frame["content"])[test].tolist()


class Cells:
    """Runs the cells of a plan one by one, or finds their results in earlier runs.

    `reused` counts the results that were found; `parent` is the study's run.
    """

    def __init__(
        self, plan: Plan, resources: SharedResources, dataset: Dataset, seed: int, parent: str
    ) -> None:
        self.cases, self._case_names = test_cases(dataset)
        self.names = cell_names(plan.cells)
        self.reused = 0
        self._arms = cell_names([dataclasses.replace(cell, seed=0) for cell in plan.cells])
        self._plan, self._resources, self._seed, self._parent = plan, resources, seed, parent

    def ordered(self) -> list[Cell]:
        """Returns the cells sorted by backbone, so that each backbone is loaded once."""
        cells = self._plan.cells
        origins = list(dict.fromkeys((cell.architecture, cell.weights) for cell in cells))
        return sorted(
            cells,
            key=lambda cell: (origins.index((cell.architecture, cell.weights)), cell.seed),
        )

    def cell_result(self, cell: Cell, rates: ChosenRates) -> CellResult:
        """Returns the result of a cell, or the reason why it failed.

        `rates` has the learning rates of arms. In the first cell of an arm it is chosen.
        """
        try:
            outcome = self._outcome(rates.settled(cell), self.names[cell])
            return dataclasses.replace(self._described(cell), outcome=outcome)
        except MedtlError as error:
            return self.failed(cell, str(error))

    def failed(self, cell: Cell, reason: str) -> CellResult:
        """Returns the result of a failed cell."""
        return dataclasses.replace(self._described(cell), error=reason)

    def _described(self, cell: Cell) -> CellResult:
        return CellResult(
            name=self.names[cell],
            arm=self._arms[arm(cell)],
            architecture=cell.architecture,
            series=cell.series,
            cutoff=cell.cutoff,
            fraction=cell.fraction,
            seed=cell.seed,
            settings=dataclasses.asdict(cell)
            | {"rates": ",".join(f"{rate:g}" for rate in cell.rates)},
        )

    def _outcome(self, cell: Cell, name: str) -> Outcome:
        """Returns the result of the cell of this name, from this or an earlier run.

        Raises:
            MedtlError: the cell failed; its run has the same message.
        """
        tags = {"medtl.kind": "cell", "medtl.study": self._plan.study}
        transfer: TransferLearner | None = None
        try:
            transfer = self._resources.transfer(cell)
        except Exception as error:
            reason = _as_line(error)
        else:
            key = self._resources.key(cell, transfer)
            known = finished_cell(key, self.cases, self._case_names, self._parent)
            if known is not None:
                self.reused += 1
                return known
            backbone = transfer.backbone
            tags |= {
                KEY_TAG: key,
                "medtl.architecture": backbone.architecture,
                "medtl.weights": backbone.weights,
                "medtl.cutoff": cell.cutoff,
                "medtl.data": transfer.dataset.fingerprint,
            }
        with (
            CheckpointHold() as ends,
            nested_run(name, tags, cell.params(), self._parent) as run,
        ):
            if transfer is None:
                raise reason
            try:
                outcome = self._resources.run(cell, transfer, run.info.run_id, ends)
                log_outcome(outcome, self.cases, self._case_names, self._scores(outcome))
            except Exception as error:
                raise _as_line(error) from error
        return outcome

    def _scores(self, outcome: Outcome) -> Mapping[str, Interval]:
        cases = self.cases
        return measure(
            cases.labels, outcome.probabilities, cases.groups, cases.classes, self._seed
        ).summary


def _as_line(error: Exception) -> MedtlError:
    """Returns any error as a `MedtlError` of one line."""
    if isinstance(error, MedtlError):
        return error
    return MedtlError(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
