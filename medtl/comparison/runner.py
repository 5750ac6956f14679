"""Runs the cells of a comparison on shared data, backbones and activations."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable

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
from medtl.evaluation.model_comparison import Cases, CellResult, Outcome
from medtl.inference.decisions import calibrated
from medtl.networks.cutoffs import resolve
from medtl.networks.flops import operations
from medtl.networks.pretrained import Backbone
from medtl.networks.registry import image_network
from medtl.pipeline.pretraining import backbone_of, drawn_down, with_phantom_backbone
from medtl.pipeline.run_logging import history, log_halved
from medtl.pipeline.setup import Origin, fit_model, training_data
from medtl.settings.comparison import CompareSettings
from medtl.settings.training import OF_DATA, LearningSettings, PretrainSettings, TrainSettings
from medtl.tracking.runs import nested_run
from medtl.training import epoch_budget
from medtl.training.activation_cache import ActivationCache
from medtl.training.checkpoints import CheckpointHold
from medtl.training.learner import Trained, TransferLearner

# Settings of which no number depends, or that the cell, the data and the backbone stand for.
NOT_IN_KEY = OF_DATA | frozenset(
    ("architecture", "weights", "transfer", "classifier", "augment", "hidden", "keep", "device")
)


class SharedResources:
    """Resources shared by consecutive cells of one origin in a study."""

    def __init__(
        self,
        settings: CompareSettings,
        plan: Plan,
        read: Callable[[LearningSettings, int], Dataset] = training_data,
    ) -> None:
        """`read` gives the data set of the settings at a size."""
        self._settings, self._plan, self._read = settings, plan, read
        self._datasets: dict[tuple[int, str], Dataset] = {}
        self._origins: dict[tuple[str, str], Origin | MedtlError] = {}
        self._operations: dict[tuple[str, int, tuple[str, ...], int], int] = {}
        self._backbone: tuple[object, Backbone] | None = None
        self._activation_cache: tuple[object, ActivationCache] | None = None
        self.notes: list[str] = []  # on the sources that were pretrained on

    def dataset(self, cells: Iterable[Cell]) -> Dataset:
        """The data set as the first of the cells that has a backbone sees it.

        Raises:
            MedtlError: the data cannot be trained on, or no cell has a backbone.
        """
        reason: MedtlError | None = None
        for cell in cells:
            try:
                return self.data(self.origin(cell).image_size)
            except MedtlError as error:
                if not isinstance(self._origins.get((cell.architecture, cell.weights)), MedtlError):
                    raise  # of the data, which all cells have in common
                reason = error
        assert reason is not None
        raise reason

    def origin(self, cell: Cell) -> Origin:
        """What the cell's backbone is made of; one that has to be pretrained is, once.

        Raises:
            MedtlError: it cannot be had; the same for all cells of this architecture and weights.
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
        """The cell's backbone on its share of the training split.

        Raises:
            MedtlError: the backbone cannot be had.
        """
        origin = self.origin(cell)
        dataset = self.data(origin.image_size, cell.modality)
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
        """Returns a key of all that the cell's numbers depend on."""
        # the digest identifies the weights, wherever their file is
        own = dataclasses.asdict(dataclasses.replace(cell, series="", weights=""))
        if not cell.rates:
            del own["rates"]
        asked = {
            field.name: getattr(self._settings, field.name)
            for field in dataclasses.fields(LearningSettings)
            if field.name not in NOT_IN_KEY
        }
        backbone = transfer.backbone
        return content_key(
            self._plan.study,
            epoch_budget.FORMAT,
            own,
            {**asked, "precision": transfer.precision},
            transfer.dataset.identity,
            (backbone.digest(), dataclasses.astuple(backbone.preprocessing)),
        )

    def run(
        self, cell: Cell, transfer: TransferLearner, run_id: str, ends: CheckpointHold
    ) -> Outcome:
        """Trains the cell, logging its epochs in the active run, and scores the test split once.

        `ends` holds the training until that run has ended.
        """
        backbone = transfer.backbone
        point = resolve(backbone.network, backbone.architecture, cell.cutoff)
        asked, tried = self.train_settings(cell), ()
        started = time.perf_counter()
        if cell.rates:
            model, tried = trained_at_best_rate(asked, cell.rates, transfer, point.name, ends)
        else:
            model = fit_model(asked, transfer, point.name, ends=ends)
        lr = chosen_rate(tried).lr if tried else cell.lr
        # without the trainings at other rates, so that repeats cost alike
        started += sum(each.seconds for each in tried if each.lr != lr)
        log_halved(model.halved)
        labels = transfer.labels("valid")
        temperature = fit_temperature(model.fit.valid_logits, labels)
        probabilities = calibrated(transfer.logits(model, "test"), temperature)
        seconds = time.perf_counter() - started
        groups = transfer.dataset.groups[transfer.dataset.splits["valid"]]
        valid = calibrated(model.fit.valid_logits, temperature)
        interval = mean_score(labels, [valid], groups, "auroc", self._settings.seed)
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
            **self._cost(transfer, model),
        )

    def train_settings(self, cell: Cell) -> TrainSettings:
        """Returns the settings with which `train` would train the cell on all images.

        Of several learning rates the first.
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
            own["classifier"] = cell.classifier
        else:
            lr = cell.rates[0] if cell.rates else cell.lr
            own |= {"classifier": "logistic", "optimizer": cell.optimizer, "lr": lr}
        return TrainSettings(**shared | own)

    def _with_weights(self, settings: TrainSettings) -> TrainSettings:
        """The settings with weights that have to be made first replaced by the URI of the model."""
        if not settings.weights.startswith(PRETRAINED_ON):
            return with_phantom_backbone(settings)
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
        """Returns how many training images of the source are learned from; 0 for all.

        As many as the smallest source of the study has, so that a larger one is no advantage.
        `notes` says what is drawn.
        """
        sources: dict[str, Dataset] = {}
        starts = dict.fromkeys(cell.weights for cell in self._plan.cells)
        for start in starts:
            if start.startswith(PRETRAINED_ON):
                each = dataclasses.replace(source, data=start.removeprefix(PRETRAINED_ON))
                with contextlib.suppress(MedtlError):  # its own cells say why
                    sources[each.data] = training_data(each, Origin.of(each).image_size)
        own = sources[source.data]
        fewest = min(len(dataset.splits["train"]) for dataset in sources.values())
        given = [
            start for start in starts if start != "random" and not start.startswith(PRETRAINED_ON)
        ]
        if given:
            self._note(
                f"the number of images behind the weights {', '.join(given)} is as it is: only "
                "sources that are data are drawn to equal sizes"
            )
        count = len(own.splits["train"])
        if count == fewest:
            return 0
        drawn = len(drawn_down(own, fewest, source.seed))
        self._note(
            f"{drawn:,} of the {count:,} training images of {own.name} are pretrained on, drawn by "
            f"patient and of each class alike: the smallest source has {fewest:,}"
        )
        return fewest

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)

    def _check_source(self, source: PretrainSettings) -> None:
        """Raises `MedtlError` where a source shows images that the target is judged by."""
        if source.data in EMBEDDED:
            return
        size = Origin.of(source).image_size
        target = self.data(size)
        judged = np.concatenate([target.splits[split] for split in ("valid", "test")])
        known = set(training_data(source, size).frame["content"])
        shared = known & set(target.frame["content"].iloc[judged])
        if shared:
            raise MedtlError(
                f"{source.data} holds {len(shared)} of the images that {target.name} is validated "
                "and tested on: what is pretrained on them cannot be judged by them; leave them out"
            )

    def data(self, image_size: int, modality: str = "") -> Dataset:
        """The data set at a size; of its modalities all, or one.

        Raises:
            MedtlError: it cannot be trained on.
        """
        key = (image_size, modality)
        if key not in self._datasets:
            self._datasets[key] = (
                self.data(image_size).only(modality)
                if modality
                else self._read(self._settings, image_size)
            )
        return self._datasets[key]

    def _made(self, cell: Cell, origin: Origin, dataset: Dataset) -> Backbone:
        key = (cell.architecture, cell.weights, cell.modality, cell.seed, cell.hidden)
        if self._backbone is None or self._backbone[0] != key:
            self._backbone = (key, origin.backbone(dataset, cell.seed, cell.hidden))
        return self._backbone[1]

    def _points(self, cell: Cell, backbone: Backbone):
        """The cuts that the cells of this backbone ask for, as far as it has them."""
        for other in self._plan.cells:
            if (other.architecture, other.weights) == (cell.architecture, cell.weights):
                try:
                    yield resolve(backbone.network, backbone.architecture, other.cutoff)
                except ParameterError:
                    continue

    def _cost(self, transfer: TransferLearner, model: Trained) -> dict[str, float]:
        """Computes the training cost; a hybrid has no gradient through the network."""
        if model.tail is not None:
            return {"trained_parameters": 0, "trained_flops": 0, "trained_share": 0.0}
        backbone = transfer.backbone
        size = transfer.image_size
        key = (backbone.architecture, size, transfer.dataset.modalities, transfer.settings.hidden)
        if key not in self._operations:
            images = (3 * max(1, len(transfer.dataset.modalities)), size, size)
            self._operations[key] = operations(backbone.network, [images])
        trained_flops = operations(model.cut.suffix, model.cut.shapes)
        return {
            "trained_parameters": sum(each.numel() for each in model.cut.suffix.parameters()),
            "trained_flops": trained_flops,
            "trained_share": trained_flops / self._operations[key],
        }


def test_cases(dataset: Dataset) -> tuple[Cases, list[str]]:
    """The test cases, and what tells them apart: the contents of the images."""
    test = dataset.splits["test"]
    cases = Cases(dataset.labels[test], dataset.groups[test], dataset.classes, dataset.unit)
    return cases, np.asarray(dataset.frame["content"])[test].tolist()


class Cells:
    """Runs the cells of a plan one by one, or finds what they came to before.

    `reused` counts those that were found; `parent` is the study's run.
    """

    def __init__(
        self, plan: Plan, bench: SharedResources, dataset: Dataset, seed: int, parent: str
    ) -> None:
        self.cases, self._case_names = test_cases(dataset)
        self.names = cell_names(plan.cells)
        self.reused = 0
        self._arms = cell_names([dataclasses.replace(cell, seed=0) for cell in plan.cells])
        self._plan, self._bench, self._seed, self._parent = plan, bench, seed, parent

    def ordered(self) -> list[Cell]:
        """Cells of one backbone after each other: it is made, and its activations opened, once."""
        cells = self._plan.cells
        origins = list(dict.fromkeys((cell.architecture, cell.weights) for cell in cells))
        return sorted(
            cells,
            key=lambda cell: (origins.index((cell.architecture, cell.weights)), cell.seed),
        )

    def cell_result(self, cell: Cell, rates: ChosenRates) -> CellResult:
        """Returns the cell with what it came to, or why it failed.

        `rates` are those of its repeats; a cell that is the first of its arm chooses its own.
        """
        try:
            outcome = self._outcome(rates.settled(cell), self.names[cell])
            return dataclasses.replace(self._described(cell), outcome=outcome)
        except MedtlError as error:
            return self.failed(cell, str(error))

    def failed(self, cell: Cell, reason: str) -> CellResult:
        """Returns the cell with why it failed."""
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
            MedtlError: it failed; the line also stands in its run.
        """
        tags = {"medtl.kind": "cell", "medtl.study": self._plan.study}
        transfer: TransferLearner | None = None
        try:
            transfer = self._bench.transfer(cell)
        except Exception as error:
            reason = _as_line(error)
        else:
            key = self._bench.key(cell, transfer)
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
                outcome = self._bench.run(cell, transfer, run.info.run_id, ends)
                log_outcome(outcome, self.cases, self._case_names, self._scores(outcome))
            except Exception as error:
                raise _as_line(error) from error
        return outcome

    def _scores(self, outcome: Outcome):
        cases: Cases = self.cases
        return measure(
            cases.labels, outcome.probabilities, cases.groups, cases.classes, self._seed
        ).summary


def _as_line(error: Exception) -> MedtlError:
    """Any error as the one line of a failed cell; ours are such lines already."""
    if isinstance(error, MedtlError):
        return error
    return MedtlError(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
