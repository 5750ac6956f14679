"""Trained model as it is stored and served: network, preprocessing, calibration, thresholds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medtl.errors import MedtlError
from medtl.inference.captum_maps import occlusion
from medtl.inference.decisions import calibrated, decide, decide_findings, findings_text, presence
from medtl.inference.explanation_cut import Explained, explained
from medtl.inference.grad_cam import heatmap_png, mean_grad_cam, side_by_side
from medtl.inference.label_record import LabelRecord
from medtl.inference.out_of_distribution import LAYOUT, MIDDLE, NETWORK, DomainReference, layout
from medtl.inference.prediction_sets import PredictionSets
from medtl.inference.training_record import TrainingRecord
from medtl.networks.cutoffs import CutPoint, halfway, resolve
from medtl.networks.ensemble import (
    Ensemble,
    is_ensemble_state,
    member_scores,
    members_of,
    stored_state,
)
from medtl.networks.partition import Frozen, cut_by_way_of, folded
from medtl.networks.pooled_features import pooled, pooled_with_spread
from medtl.networks.pooled_head import restore_convolution
from medtl.networks.preprocessing import Preprocessing, network_input, unit_images
from medtl.networks.registry import build

if TYPE_CHECKING:
    from medtl.inference.sklearn_head import SklearnHead

FORMAT = 2  # of stored models, 2 since ensembles; all formats up to this one are read
SETTINGS_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"
DOMAIN_FILE = "domain.safetensors"
TAIL_FILE = "tail.skops"
SEEN_FILE = "seen.json"
LABELS_FILE = "labels.json"
CHECKSUMS_FILE = "checksums.json"
"""SHA-256 of each other file of a stored model, in hex; older models have none."""


@dataclass(frozen=True)
class Answers:
    """Output of a predictor for B images."""

    probabilities: np.ndarray  # float64 [B, K], calibrated
    labels: np.ndarray  # int [B], the most probable class
    decisions: np.ndarray  # int [B], the class at the operating point; for findings bool [B, K]
    distances: np.ndarray | None  # [B], to the training images; None without a reference

    @property
    def in_domain(self) -> np.ndarray | None:
        """Flags images that resemble the training images, bool [B]; None without a reference."""
        return None if self.distances is None else self.distances <= 1


@dataclass(frozen=True)
class _Passes:
    """Parts of the network, or of an ensemble's members, that `Predictor.answer` runs.

    Attributes:
        way: from the images to the features, in two steps if there is a middle layer.
        suffix: from the features to the scores.
        others: of the other members of an ensemble, from where they differ to their scores.
    """

    way: list[Frozen]
    suffix: nn.Module
    others: list[nn.Module]


@dataclass(frozen=True)
class Predictor:
    """Network with classes, preprocessing, calibration, operating point and origin.

    Attributes:
        architecture: name in the registry of architectures.
        classes: names of the classes or findings, in the order of the network's outputs.
        preprocessing: as in training; its `image_size` is the side of the input.
        weights: initial weights, as given by the user.
        cutoff: first layer that was trained.
        data: name of the data set.
        fingerprint: hash of the data set's images, labels and splits.
        temperature: divisor of the logits.
        thresholds: one per class, see `medtl.inference.decisions.decide`.
        network: in eval mode; an `Ensemble` where it is several networks.
        sensitivity: least sensitivity required of the thresholds; 0 for Youden's index.
        hidden: units of the dense ReLU layer before the output layer; 0 for none.
        multi_label: true if an image can have any number of the classes (findings).
        modalities: names of the images of a case; empty if a sample is one image.
        missing: `refuse`, or `mask` if cases may lack images.
        domain: reference for out-of-distribution detection.
        tail: classical classifier of a hybrid, in place of the suffix.
        members: number of networks whose logits are averaged; 0 for a single model. Linear members
            on equal features are stored as one network.
        seen: training records, also of the backbone if trained here; None if unknown.
        labels: record of the labels of all samples of the data set; None in older models.
        ordinal: true if the classes are in an order, such as grades.
        sets: conformal prediction sets; None if the model has none.
    """

    architecture: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    weights: str
    cutoff: str
    data: str
    fingerprint: str
    temperature: float
    thresholds: tuple[float, ...]
    network: nn.Module = field(repr=False)
    sensitivity: float = 0.0
    hidden: int = 0
    multi_label: bool = False
    modalities: tuple[str, ...] = ()
    missing: str = "refuse"
    members: int = 0
    domain: DomainReference | None = field(default=None, repr=False)
    tail: SklearnHead | None = field(default=None, repr=False)
    seen: tuple[TrainingRecord, ...] | None = field(default=None, repr=False)
    labels: LabelRecord | None = field(default=None, repr=False)
    ordinal: bool = False
    sets: PredictionSets | None = None

    @property
    def image_size(self) -> int:
        """Side S of the square input in pixels."""
        return self.preprocessing.image_size

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one grey sample for `answer`: (1, S, S), of a case (M, 1, S, S)."""
        cases = (len(self.modalities),) if self.modalities else ()
        return (*cases, 1, self.image_size, self.image_size)

    def moved_to(self, device: torch.device) -> Predictor:
        """Moves the network to a device; returns the predictor that computes there."""
        self.network.to(device)
        return dataclasses.replace(self)  # without the parts that were made for another device

    def answer(self, images: np.ndarray) -> Answers:
        """Predicts stored pixels [B, 1 or 3, S, S], uint8 or uint16.

        Cases are [B, M, 1 or 3, S, S]; a missing image is all 0.
        """
        logits, compared = self._forward(images)
        probabilities = self.probabilities(logits, self.temperature)
        return Answers(
            probabilities,
            probabilities.argmax(axis=1),
            self.decisions(probabilities),
            None if self.domain is None else self.domain.distance(compared),
        )

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Returns the logits of stored pixels (see `answer`), float32 [B, K]."""
        return self._forward(images)[0]

    def probabilities(self, logits: np.ndarray, temperature: float) -> np.ndarray:
        """Converts logits [B, K] to probabilities float64 [B, K]; those of classes sum to one."""
        return (presence if self.multi_label else calibrated)(logits, temperature)

    def decisions(self, probabilities: np.ndarray) -> np.ndarray:
        """Decides probabilities [B, K] at the operating point; see `Answers.decisions`."""
        rule = decide_findings if self.multi_label else decide
        return rule(probabilities, np.array(self.thresholds))

    def named(self, decision: np.ndarray) -> str:
        """Formats the decision of one sample: the class, or the findings joined by |."""
        if self.multi_label:
            return findings_text(decision, self.classes)
        return self.classes[int(decision)]

    def features(self, images: np.ndarray) -> np.ndarray:
        """Returns the input of the head for stored pixels: float32 [B, F].

        A map is averaged over its places.
        """
        return self.compared(images)[NETWORK]

    def compared(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the descriptors for a domain reference, by name: float32 [B, F] each."""
        return self._forward(images)[1]

    def distances(self, images: np.ndarray) -> np.ndarray | None:
        """Returns the distances of stored pixels to the training images: [B], up to 1 in domain.

        None without a reference.
        """
        if self.domain is None:
            return None
        return self.domain.distance(self.compared(images))

    def heatmaps(self, images: np.ndarray, classes: np.ndarray) -> list[bytes]:
        """Draws a heat map over each image for a class (int [B]): PNG files.

        Uses Grad-CAM, of an ensemble the mean of its members' maps; for hybrids, which have no
        gradient, occlusion with about 50 forward passes per image. The images of a case lie
        side by side.

        Raises:
            MedtlError: the network has no map at this image size (not for hybrids).
        """
        prepared, indices = self._prepared(images), torch.from_numpy(classes)
        if self.tail is None:
            heats = mean_grad_cam(self._explained, prepared, indices)
        else:
            heats = occlusion(self.scores_of, prepared, indices)
        shown = side_by_side(images)
        return [heatmap_png(image, heat) for image, heat in zip(shown, heats, strict=True)]

    @torch.no_grad()
    def read(self, prepared: Tensor) -> np.ndarray:
        """Returns `features` of network input [B, 3, S, S], for cases [B, M x 3, S, S]."""
        crossing: tuple[Tensor, ...] = (prepared,)
        for part in self._passes.way:
            crossing = part(*crossing)
        return pooled(crossing).cpu().numpy()

    def scores_of(self, prepared: Tensor) -> Tensor:
        """Returns a hybrid's scores [B, K] of network input, as `read` takes it."""
        assert self.tail is not None
        return torch.from_numpy(self.tail.logits(self.read(prepared))).to(prepared.device)

    def save(self, folder: Path) -> None:
        """Writes tensors as safetensors, a hybrid's classifier as skops, all else as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        state = stored_state(self.network)
        weights = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
        save_file(weights, folder / WEIGHTS_FILE)
        if self.domain is not None:
            save_file(self.domain.tensors(), folder / DOMAIN_FILE)
        if self.tail is not None:
            self.tail.save(folder / TAIL_FILE)
        if self.seen is not None:
            records = [each.record() for each in self.seen]
            (folder / SEEN_FILE).write_text(json.dumps(records) + "\n", "utf-8")
        if self.labels is not None:
            (folder / LABELS_FILE).write_text(json.dumps(self.labels.record()) + "\n", "utf-8")
        settings = {
            each.name: getattr(self, each.name)
            for each in dataclasses.fields(self)
            if each.name not in ("network", "domain", "tail", "seen", "labels")
        }
        settings |= {"format": FORMAT, "preprocessing": dataclasses.asdict(self.preprocessing)}
        settings["sets"] = None if self.sets is None else dataclasses.asdict(self.sets)
        (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
        sums = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
        (folder / CHECKSUMS_FILE).write_text(json.dumps(sums, indent=2) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: Path) -> Predictor:
        """Loads the predictor that `save` wrote, on the CPU, its network in eval mode.

        Raises:
            MedtlError: the folder contains no predictor, a damaged one, or one of a later format.
        """
        try:
            _check_sums(folder)
            settings: dict[str, Any] = json.loads((folder / SETTINGS_FILE).read_text("utf-8"))
            if (number := settings.pop("format")) > FORMAT:
                raise MedtlError(
                    f"{folder} is of format {number}, and this version of medtl reads up to "
                    f"format {FORMAT}: install a newer medtl"
                )
            preprocessing = Preprocessing(**_tuples(settings.pop("preprocessing")))
            classes, side = len(settings["classes"]), preprocessing.image_size
            images = max(1, len(settings.get("modalities", ())))
            network = build(
                settings["architecture"],
                classes,
                side,
                seed=0,
                modalities=images,
                hidden=settings.get("hidden", 0),
            )
            weights = load_file(folder / WEIGHTS_FILE)
            if is_ensemble_state(weights):
                point = resolve(network, settings["architecture"], settings["cutoff"])
                network = Ensemble.of_state(network, point, side, weights)
            else:
                restore_convolution(network, weights)
                network.load_state_dict(weights)
            domain, tail, seen, labels = (
                folder / name for name in (DOMAIN_FILE, TAIL_FILE, SEEN_FILE, LABELS_FILE)
            )
            sets = settings.pop("sets", None)
            return cls(
                **_tuples(settings),
                sets=None if sets is None else PredictionSets(**_tuples(sets)),
                preprocessing=preprocessing,
                network=network.eval(),
                domain=DomainReference.of_tensors(load_file(domain)) if domain.exists() else None,
                tail=_tail(tail) if tail.exists() else None,
                seen=_seen(seen) if seen.exists() else None,
                labels=_labels(labels) if labels.exists() else None,
            )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise MedtlError(
                f"{folder} holds no model of medtl that can be read: {reason}"
            ) from error

    @cached_property
    def _passes(self) -> _Passes:
        """The network cut at the features: copies, with batch norms folded into convolutions."""
        network = members_of(self.network)[0]
        point = self._features_point(network)
        middle = halfway(network, point)
        stops = [] if middle is None else [middle]
        way, halves = cut_by_way_of(stops, network, point, self.image_size)
        others = self.network.suffixes[1:] if isinstance(self.network, Ensemble) else []
        return _Passes(
            way=[Frozen(folded(part.operations)) for part in way],
            suffix=folded(halves.suffix),
            others=[folded(suffix) for suffix in others],
        )

    def _features_point(self, network: nn.Module) -> CutPoint:
        """Returns the place of the features: a hybrid's cut-off, else before the last layer.

        Of an ensemble it is the end of the part that its members share, if there is one. That part
        has learned from no image of the data, so features of images that some of the members were
        trained on are like those of new images.
        """
        if isinstance(self.network, Ensemble) and self.network.shares_layers:
            return self.network.point
        return resolve(network, self.architecture, "head" if self.tail is None else self.cutoff)

    @cached_property
    def _explained(self) -> Explained:
        """The network, or each member, cut for heat maps; cached, as the cut is slow."""
        return explained(self.network, self.image_size)

    def _prepared(self, images: np.ndarray) -> Tensor:
        device = next(self.network.parameters()).device
        return network_input(unit_images(images, device), self.preprocessing)

    @torch.inference_mode()
    def _forward(self, images: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        prepared = self._prepared(images)
        crossing, compared = (prepared,), {LAYOUT: layout(images)}
        *before, last = self._passes.way
        for part in before:
            crossing = part(*crossing)
            compared[MIDDLE] = pooled_with_spread(crossing).cpu().numpy()
        crossing = last(*crossing)
        features = compared[NETWORK] = pooled(crossing).cpu().numpy()
        if self.tail is not None:
            return self.tail.logits(features), compared
        scores = self._scores(prepared, crossing)
        return scores.float().cpu().numpy(), compared

    def _scores(self, prepared: Tensor, crossing: tuple[Tensor, ...]) -> Tensor:
        """Computes logits [B, K] by the suffix at the features, and by the other members.

        The others continue from the features too, or from the images where they share no layer.
        """
        passes = self._passes
        if not isinstance(self.network, Ensemble):
            return passes.suffix(*crossing)
        start = crossing if self.network.shares_layers else (prepared,)
        others = member_scores(passes.others, start)
        return torch.stack([passes.suffix(*crossing), *others]).mean(dim=0)


def _tail(file: Path) -> SklearnHead:
    # scikit-learn takes a second to import, and only a hybrid needs it
    from medtl.inference.sklearn_head import SklearnHead

    return SklearnHead.load(file)


def _seen(file: Path) -> tuple[TrainingRecord, ...]:
    return tuple(TrainingRecord.of_record(each) for each in json.loads(file.read_text("utf-8")))


def _labels(file: Path) -> LabelRecord:
    return LabelRecord.of_record(json.loads(file.read_text("utf-8")))


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _check_sums(folder: Path) -> None:
    """Compares the files of a stored model with their checksums, if there are any.

    Raises:
        MedtlError: a file has changed since it was written.
    """
    file = folder / CHECKSUMS_FILE
    sums: dict[str, str] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    for name, expected in sums.items():
        if _sha256(folder / name) != expected:
            raise MedtlError(
                f"{folder / name} is damaged: its checksum is not the one stored with it; copy "
                "the model again, or log it anew"
            )


def _tuples(settings: dict[str, Any]) -> dict[str, Any]:
    """Converts the lists of JSON to tuples, which frozen settings hold."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
