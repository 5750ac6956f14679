"""Shared data, backbones and activations of a comparison, and the training of a cell on them."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.cache import content_key
from medtl.comparison.design import PRETRAINED_ON, Cell, Plan
from medtl.comparison.learning_rates import (
    chosen_rate,
    mean_of_folds,
    trained_at_best_rate,
)
from medtl.data.dataset import Dataset
from medtl.data.folds import Folds, draw_folds
from medtl.data.manifest import EMBEDDED
from medtl.data.splits import nested_share
from medtl.errors import MedtlError, ParameterError
from medtl.evaluation.calibration import fit_temperature
from medtl.evaluation.confidence_intervals import mean_score
from medtl.evaluation.model_comparison import Outcome, TriedRate
from medtl.imaging.rendering import Rendering
from medtl.inference.decisions import calibrated
from medtl.networks.cutoffs import CutPoint, resolve
from medtl.networks.flops import operations
from medtl.networks.pretrained import Backbone
from medtl.networks.registry import image_network
from medtl.pipeline.cross_validation import Member, fold_learner, fold_member
from medtl.pipeline.pretraining import backbone_of, drawn_down, ensure_backbone
from medtl.pipeline.run_logging import history, log_halved
from medtl.pipeline.setup import Origin, fit_model, training_data
from medtl.settings.comparison import CompareSettings
from medtl.settings.fields import TRAINING, key_values
from medtl.settings.training import LearningSettings, ModelSettings, PretrainSettings, TrainSettings
from medtl.training import epoch_budget
from medtl.training.activation_cache import ActivationCache
from medtl.training.checkpoints import CheckpointHold
from medtl.training.classical_head import CLASSIFIER_SETTINGS
from medtl.training.learner import Trained, TransferLearner
from medtl.training.loop import Epoch

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
        self.notes: list[str] = []  # on the sources of pretraining, and on files of weights

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
        if cell.classifier:
            own["classifier"] = (cell.classifier, *CLASSIFIER_SETTINGS[cell.classifier])
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

    def run_on_folds(
        self, cell: Cell, transfer: TransferLearner, run_id: str, ends: CheckpointHold
    ) -> Outcome:
        """Trains the cell once a fold, and scores each sample by the model that has not seen it.

        Of several learning rates each fold chooses one on its own validation part. The outcome has
        the most frequent one, and means over the folds. Other arguments as in `run`.
        """
        backbone = transfer.backbone
        point = resolve(backbone.network, backbone.architecture, cell.cutoff)
        settings, started = self.train_settings(cell), time.perf_counter()
        members: list[Member] = []
        tried: list[tuple[TriedRate, ...]] = []

        def unlogged(epoch: Epoch) -> None:
            """Logs nothing: epochs of several folds would have the same steps."""

        def probabilities(own: TransferLearner) -> np.ndarray:
            if cell.rates:
                model, found = trained_at_best_rate(
                    settings, cell.rates, own, point.name, ends, unlogged
                )
                tried.append(found)
            else:
                model = fit_model(settings, own, point.name, unlogged, ends)
            log_halved(model.halved)
            members.append(fold_member(own, str(len(members) + 1), model))
            return members[-1].predictions.probabilities

        pooled = self.predicted(cell, transfer, probabilities)
        seconds = time.perf_counter() - started
        fits = [each.trained.fit for each in members]
        aurocs = [each.best.valid_auroc for each in fits]
        epochs = pd.concat([history(each) for each in fits])
        cost = self._cost(transfer, members[0].trained)
        solved = members[0].trained.solved is not None
        chosen = [chosen_rate(each).lr for each in tried if each] or [cell.lr]
        return Outcome(
            probabilities=pooled,
            history=epochs.groupby("epoch", as_index=False).mean(),
            valid_auroc=float(np.mean(aurocs)),
            valid_error=float(np.std(aurocs, ddof=1) / len(aurocs) ** 0.5),
            best_epoch=round(np.mean([each.best.number for each in fits])),
            seconds=seconds,
            place=point.position,
            run_id=run_id,
            lr=0.0 if solved else statistics.mode(chosen),
            rates=mean_of_folds(tried),
            trained_parameters=cost.parameters,
            trained_flops=cost.flops,
            trained_share=cost.share,
        )

    def predicted(
        self,
        cell: Cell,
        transfer: TransferLearner,
        predict: Callable[[TransferLearner], np.ndarray],
    ) -> np.ndarray:
        """Returns probabilities [N, K] of the scored samples, as `predict` gives for a test split.

        With folds `predict` is called for each, and a sample has the result of the fold that tests
        it.
        """
        if not self._settings.folds:
            return predict(transfer)
        folds = self.folds(transfer.dataset)
        parts, places = [], []
        for number in range(len(folds.names)):
            own = fold_learner(transfer, folds, number)
            splits = own.dataset.splits
            if cell.fraction < 1:
                labels, groups = (
                    each[splits["train"]] for each in (own.dataset.labels, own.dataset.groups)
                )
                rows = nested_share(labels, groups, cell.fraction, cell.seed)
                own = dataclasses.replace(own, rows=rows, shared=transfer.activation_cache)
            parts.append(predict(own))
            places.append(splits["test"])
        return np.concatenate(parts)[np.argsort(np.concatenate(places))]

    def folds(self, dataset: Dataset) -> Folds:
        """Returns the folds of the settings; they are the same at every size of the images."""
        return draw_folds(dataset, self._settings.folds, self._settings.seed)

    def scored(self, dataset: Dataset) -> np.ndarray:
        """Returns the samples that cells are scored on: the test split, or all in folds."""
        return self.folds(dataset).tested if self._settings.folds else dataset.splits["test"]

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
            if loaded := self._backbone[1].note:
                self._note(f"weights {loaded}")
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
