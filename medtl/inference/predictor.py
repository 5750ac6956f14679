"""The trained model as it is kept and served: a network, and what its scores mean."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medtl.errors import MedtlError
from medtl.inference.captum_maps import occlusion
from medtl.inference.decisions import calibrated, decide, decide_findings, findings_text, presence
from medtl.inference.grad_cam import explanation_cut, grad_cam, heatmap_png, side_by_side
from medtl.inference.label_record import LabelRecord
from medtl.inference.out_of_distribution import LAYOUT, MIDDLE, NETWORK, DomainReference, layout
from medtl.inference.training_record import TrainingRecord
from medtl.networks.cutoffs import halfway, resolve
from medtl.networks.partition import Cut, Frozen, cut_by_way_of
from medtl.networks.pooled_head import restore_convolution
from medtl.networks.pooling import pooled, pooled_with_spread
from medtl.networks.preprocessing import Preprocessing, network_input, unit_images
from medtl.networks.registry import build

if TYPE_CHECKING:
    from medtl.inference.sklearn_head import SklearnHead

FORMAT = 1
SETTINGS_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"
DOMAIN_FILE = "domain.safetensors"
TAIL_FILE = "tail.skops"
SEEN_FILE = "seen.json"
LABELS_FILE = "labels.json"


@dataclass(frozen=True)
class Answers:
    """Output of a bundle for B images."""

    probabilities: np.ndarray  # float64 [B, K], calibrated
    labels: np.ndarray  # int [B], the most probable class
    decisions: np.ndarray  # int [B], the class at the operating point; of findings bool [B, K]
    in_domain: np.ndarray | None  # bool [B]; None where the bundle has no reference


@dataclass(frozen=True)
class Predictor:
    """A network with its classes, preprocessing, calibration, operating point and origin."""

    architecture: str
    classes: tuple[str, ...]  # in the order of the network's outputs
    preprocessing: Preprocessing  # as in training: its image_size is the side of the input
    weights: str  # where training started from, in the user's words
    cutoff: str  # the first layer that was trained
    data: str  # the name of the data set
    fingerprint: str  # of its images, labels and splits
    temperature: float
    thresholds: tuple[float, ...]  # one a class, as `medtl.inference.decisions.decide` has them
    network: nn.Module = field(repr=False)
    sensitivity: float = 0.0  # asked of the thresholds; 0 where they are Youden's
    hidden: int = 0  # units of the dense ReLU layer before the output layer; 0 for none
    multi_label: bool = False  # classes are findings, of which an image has any number
    modalities: tuple[str, ...] = ()  # of cases; none where a sample is one image
    missing: str = "refuse"  # or mask: cases without the image of a modality are answered
    domain: DomainReference | None = field(default=None, repr=False)
    tail: SklearnHead | None = field(
        default=None, repr=False
    )  # a hybrid's, which answers for the suffix
    # what it learned from, its backbone's training here included; None where that is not known
    seen: tuple[TrainingRecord, ...] | None = field(default=None, repr=False)
    # labels of all samples of its data, test ones too; None in older models
    labels: LabelRecord | None = field(default=None, repr=False)

    @property
    def image_size(self) -> int:
        """Side S of the square input in pixels."""
        return self.preprocessing.image_size

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one grey sample, as `answer` takes it: (1, S, S), of a case (M, 1, S, S)."""
        cases = (len(self.modalities),) if self.modalities else ()
        return (*cases, 1, self.image_size, self.image_size)

    def answer(self, images: np.ndarray) -> Answers:
        """Probabilities and decisions for stored pixels [B, 1 or 3, S, S], uint8 or uint16.

        Of cases [B, M, 1 or 3, S, S]; an image that is missing is all 0.
        """
        logits, compared = self._forward(images)
        probabilities = self.probabilities(logits, self.temperature)
        return Answers(
            probabilities,
            probabilities.argmax(axis=1),
            self.decisions(probabilities),
            None if self.domain is None else self.domain.inside(compared),
        )

    def scores(self, images: np.ndarray) -> np.ndarray:
        """The network's own scores (logits, not calibrated) of such pixels, float32 [B, K]."""
        return self._forward(images)[0]

    def probabilities(self, logits: np.ndarray, temperature: float) -> np.ndarray:
        """Scores [B, K] as probabilities float64 [B, K]: of classes they sum to one."""
        return (presence if self.multi_label else calibrated)(logits, temperature)

    def decisions(self, probabilities: np.ndarray) -> np.ndarray:
        """What is decided at the operating point, as `Answers` has it, of probabilities [B, K]."""
        rule = decide_findings if self.multi_label else decide
        return rule(probabilities, np.array(self.thresholds))

    def named(self, decision: np.ndarray) -> str:
        """One of these decisions in words: the class, or the findings joined by |."""
        if self.multi_label:
            return findings_text(decision, self.classes)
        return self.classes[int(decision)]

    def features(self, images: np.ndarray) -> np.ndarray:
        """What the network's head, or a hybrid's tail, reads of such pixels: float32 [B, F].

        Where that is a map, it is averaged over its places.
        """
        return self.compared(images)[NETWORK]

    def compared(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """What a domain reference compares of such pixels, by name: float32 [B, F] each."""
        return self._forward(images)[1]

    def distances(self, images: np.ndarray) -> np.ndarray | None:
        """How strange such pixels are: [B], above 1 where not `in_domain`.

        None where the bundle has no reference.
        """
        if self.domain is None:
            return None
        return self.domain.distance(self.compared(images))

    def heatmaps(self, images: np.ndarray, classes: np.ndarray) -> list[bytes]:
        """A PNG for each of such pixels, with where the network sees its class (int [B]) laid over.

        By Grad-CAM; a hybrid has no gradient, and is asked by occlusion: some fifty passes an
        image. The images of a case lie side by side.

        Raises:
            MedtlError: the network, of no hybrid, has no map at this image size.
        """
        prepared, asked = self._prepared(images), torch.from_numpy(classes)
        if self.tail is None:
            heats = grad_cam(self._explained, prepared, asked)
        else:
            heats = occlusion(self.scores_of, prepared, asked)
        shown = side_by_side(images)
        return [heatmap_png(image, heat) for image, heat in zip(shown, heats, strict=True)]

    @torch.no_grad()
    def read(self, prepared: Tensor) -> np.ndarray:
        """`features` of images as the network takes them, [B, 3, S, S] (cases [B, M x 3, S, S])."""
        return pooled(self._cuts[1].prefix(prepared)).cpu().numpy()

    def scores_of(self, prepared: Tensor) -> Tensor:
        """Returns a hybrid's scores [B, K], those of its tail, of such images."""
        return torch.from_numpy(self.tail.logits(self.read(prepared))).to(prepared.device)

    def save(self, folder: Path) -> None:
        """Writes weights and domain reference as safetensors, a hybrid's tail, all else as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        state = self.network.state_dict()
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
        (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: Path) -> Predictor:
        """The bundle that `save` wrote, on the CPU, its network in eval mode.

        Raises:
            MedtlError: the folder holds no bundle, a damaged one, or one of another format.
        """
        try:
            settings = json.loads((folder / SETTINGS_FILE).read_text("utf-8"))
            if settings.pop("format") != FORMAT:
                raise MedtlError(f"{folder} was written by another version of medtl: use that one")
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
            restore_convolution(network, weights)
            network.load_state_dict(weights)
            domain, tail, seen, labels = (
                folder / name for name in (DOMAIN_FILE, TAIL_FILE, SEEN_FILE, LABELS_FILE)
            )
            return cls(
                **_tuples(settings),
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
    def _cuts(self) -> tuple[list[Frozen], Cut]:
        """The network before and from the features: at its last layer, or a hybrid's cut-off.

        Before it the way to the features: to the middle of it, and on from there.
        """
        where = "head" if self.tail is None else self.cutoff
        point = resolve(self.network, self.architecture, where)
        middle = halfway(self.network, point)
        stops = [] if middle is None else [middle]
        way, halves = cut_by_way_of(stops, self.network, point, self.image_size)
        halves.suffix.eval()
        return way, halves

    @cached_property
    def _explained(self) -> Cut:
        """The network cut where heat maps are taken; made when the first is asked for."""
        return explanation_cut(self.network, self.image_size)

    def _prepared(self, images: np.ndarray) -> Tensor:
        device = next(self.network.parameters()).device
        return network_input(unit_images(images, device), self.preprocessing)

    @torch.inference_mode()
    def _forward(self, images: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        crossing, compared = (self._prepared(images),), {LAYOUT: layout(images)}
        way, halves = self._cuts
        *before, last = way
        for part in before:
            crossing = part(*crossing)
            compared[MIDDLE] = pooled_with_spread(crossing).cpu().numpy()
        crossing = last(*crossing)
        features = compared[NETWORK] = pooled(crossing).cpu().numpy()
        if self.tail is not None:
            return self.tail.logits(features), compared
        return halves.suffix(*crossing).float().cpu().numpy(), compared


def _tail(file: Path) -> SklearnHead:
    # scikit-learn takes a second to import, and only a hybrid needs it
    from medtl.inference.sklearn_head import SklearnHead

    return SklearnHead.load(file)


def _seen(file: Path) -> tuple[TrainingRecord, ...]:
    return tuple(TrainingRecord.of_record(each) for each in json.loads(file.read_text("utf-8")))


def _labels(file: Path) -> LabelRecord:
    return LabelRecord.of_record(json.loads(file.read_text("utf-8")))


def _tuples(settings: dict[str, object]) -> dict[str, object]:
    """JSON knows lists only; frozen settings hold tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
