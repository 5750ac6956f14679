"""The bench of a study: data, backbones and kept activations, made once, shared by its cells."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable

import numpy as np

from medtl.data.dataset import Dataset
from medtl.data.shares import nested_share
from medtl.data.table import EMBEDDED
from medtl.errors import MedtlError, ParameterError
from medtl.evaluation.calibration import calibrated, fit_temperature
from medtl.evaluation.comparison import Cases, Outcome
from medtl.evaluation.intervals import mean_score
from medtl.jobs.prepare import Origin, training_data
from medtl.jobs.pretrain import backbone_of, drawn_down, with_phantom_backbone
from medtl.jobs.rates import chosen_rate, trained_at_best_rate
from medtl.jobs.trained import trained
from medtl.keep import key_of
from medtl.networks.architectures import image_network
from medtl.networks.backbone import Backbone
from medtl.networks.compute import operations
from medtl.networks.cutpoints import resolve
from medtl.search.studies import PRETRAINED_ON, Cell, Plan
from medtl.settings import (
    OF_DATA,
    CompareSettings,
    LearningSettings,
    PretrainSettings,
    TrainSettings,
)
from medtl.tracking.journal import history, log_halved
from medtl.training import budget
from medtl.training.checkpoints import Ends
from medtl.training.keeper import Keeper
from medtl.training.transfer import Trained, Transfer

# Settings of which no number depends, or that the cell, the data and the backbone stand for.
NOT_IN_KEY = OF_DATA | frozenset(
    ("architecture", "weights", "transfer", "classifier", "augment", "hidden", "keep", "device")
)


class Bench:
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
        self._keeper: tuple[object, Keeper] | None = None
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

    def transfer(self, cell: Cell) -> Transfer:
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
        known = self._keeper[1] if self._keeper and self._keeper[0] == seen_as else None
        transfer = Transfer(
            backbone, dataset, self.train_settings(cell), rows, self._settings.seed, known
        )
        if known is None:
            self._keeper = (seen_as, transfer.keeper)
            transfer.keeper.expect(self._points(cell, backbone))
        return transfer

    def key(self, cell: Cell, transfer: Transfer) -> str:
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
        return key_of(
            self._plan.study,
            budget.FORMAT,
            own,
            {**asked, "precision": transfer.precision},
            transfer.dataset.identity,
            (backbone.digest(), dataclasses.astuple(backbone.preprocessing)),
        )

    def run(self, cell: Cell, transfer: Transfer, run_id: str, ends: Ends) -> Outcome:
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
            model = trained(asked, transfer, point.name, ends=ends)
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

    def _cost(self, transfer: Transfer, model: Trained) -> dict[str, float]:
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
