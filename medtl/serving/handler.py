"""Answering requests: image files in, a row of answers each out."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.pyfunc import PythonModel, PythonModelContext

from medtl.errors import MedtlError
from medtl.imaging.bounded_decoding import bounded_decoders
from medtl.imaging.pixels import UnreadableImage
from medtl.inference.predictor import Answers, Predictor
from medtl.serving.micro_batching import MicroBatcher
from medtl.serving.request_images import FileReader
from medtl.serving.request_parsing import (
    MOST_BYTES,
    MOST_ROWS,
    RefusedRequest,
    check_time,
    install_request_handler,
    is_server,
)

BUNDLE = "bundle"  # the name of the artifact
COLUMN = "image"  # of a case: image_MODALITY, a column each
FIELDS = ("label", "probability", "probabilities", "decision", "in_domain", "error")
HEATMAP = "heatmap"
CHUNK = 32  # images of a request that are in memory at a time
IMAGES_A_CORE = 2  # in a pass: of one to sixteen the fastest for MobileNetV2 at 224 px on two cores


class ServedModel(PythonModel):
    """Answers each row of a DataFrame whose column `image` holds the bytes of an image file.

    Rows of cases have a column `image_MODALITY` for each image.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the bundle that was logged with the model."""
        self.bundle = Predictor.load(Path(context.artifacts[BUNDLE]))
        self.passes = MicroBatcher(self.bundle.answer, IMAGES_A_CORE * torch.get_num_threads())
        # The first pass is slow (the network is cut for it): no request should have to wait for it.
        self.passes.answer(np.zeros((1, *self.bundle.shape), np.uint8))
        if is_server():
            install_request_handler(self.answers)
            bounded_decoders().start()

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """A row of answers for each row of `model_input`, in order.

        `label`, `probability` (of the label, calibrated), `probabilities` (class to number),
        `decision` (at the operating point), `in_domain` (None where the model cannot tell) and
        `error` (None, or why the file could not be read; all else is None then). With the
        parameter `explain` also `heatmap`: a PNG in base64 that shows where the label was seen.

        Raises:
            RefusedRequest: there are no rows, or too many, or too many bytes; or a server's time
                limit is over.
        """
        # A column that may be left out is not there.
        table = model_input.reindex(columns=columns(self.bundle.modalities)).astype(object)
        samples = table.where(table.notna(), None).to_numpy().tolist()
        # As objects, so that None stays None: NaN, which it would become, is not JSON.
        return pd.DataFrame(
            self.answers(samples, bool(params and params.get("explain"))), dtype=object
        )

    def answers(self, samples: list[list[object]], explain: bool) -> list[dict[str, object]]:
        """The rows that `predict` has, for samples of image files, one a column.

        Raises:
            RefusedRequest: as `predict` does.
        """
        check_request(samples, columns(self.bundle.modalities))
        rows: list[dict[str, object]] = []
        masked = bool(self.bundle.modalities) and self.bundle.missing == "mask"
        with FileReader(self.bundle.image_size, masked) as reader:
            for start in range(0, len(samples), CHUNK):
                rows += self._answered(reader, samples[start : start + CHUNK], explain)
        return rows

    def _answered(
        self, reader: FileReader, samples: list[list[object]], explain: bool
    ) -> list[dict[str, object]]:
        fields = (*FIELDS, HEATMAP) if explain else FIELDS
        rows: list[dict[str, object]] = [dict.fromkeys(fields) for _ in samples]
        images = []
        readable = []
        for row, sample in zip(rows, reader.read(samples), strict=True):
            check_time()
            row["error"] = self._fault(sample)
            if row["error"] is None:
                images += sample
                readable.append(row)
        if images:
            stored = as_one_array(images)
            if self.bundle.modalities:
                stored = stored.reshape(len(readable), -1, *stored.shape[1:])
            answers = self.passes.answer(stored)
            heatmaps = self._heatmaps(stored, answers.labels) if explain else []
            for place, row in enumerate(readable):
                row.update(answer_fields(answers, place, self.bundle))
                if explain:
                    row[HEATMAP] = base64.b64encode(heatmaps[place]).decode("ascii")
        return rows

    def _fault(self, sample: list[np.ndarray | UnreadableImage]) -> str | None:
        """Why a sample cannot be answered, and which of its images is the reason; or None."""
        for name, image in zip(columns(self.bundle.modalities), sample, strict=True):
            if isinstance(image, UnreadableImage):
                return f"{name}: {image}" if self.bundle.modalities else str(image)
        if not any(image.any() for image in sample) and self.bundle.modalities:
            return "all images of the case are missing"
        return None

    def _heatmaps(self, stored: np.ndarray, labels: np.ndarray) -> list[bytes]:
        # A hybrid's map takes many passes: others get their turn between two, and time may be over.
        together = len(stored) if self.bundle.tail is None else 1
        heatmaps: list[bytes] = []
        try:
            for begin in range(0, len(stored), together):
                check_time()
                part = slice(begin, begin + together)
                heatmaps += self.passes.alone(self.bundle.heatmaps, stored[part], labels[part])
        except MedtlError as error:
            raise RefusedRequest(str(error)) from error
        return heatmaps


def columns(modalities: tuple[str, ...]) -> list[str]:
    """Returns the columns of a request: `image`, or one for each modality of a case."""
    return [f"{COLUMN}_{name}" for name in modalities] or [COLUMN]


def check_request(samples: list[list[object]], names: list[str]) -> None:
    """Refuses a request that has nothing to answer, or too much; its columns should be `names`."""
    if not samples:
        raise RefusedRequest(
            f"the request has no rows; give one an image, in column {' and '.join(names)}"
        )
    if len(samples) > MOST_ROWS:
        raise RefusedRequest(
            f"the request has {len(samples)} rows, more than {MOST_ROWS}; send it in parts"
        )
    size = sum(len(file) for sample in samples for file in sample if isinstance(file, bytes))
    if size > MOST_BYTES:
        raise RefusedRequest(
            f"the request has {size >> 20} MiB of images, more than {MOST_BYTES >> 20}; "
            "send it in parts"
        )


def as_one_array(images: list[np.ndarray]) -> np.ndarray:
    """Images [1 or 3, S, S], uint8 or uint16, as one array [B, C, S, S]; nothing is lost."""
    if any(image.dtype == np.uint16 for image in images):
        images = [image if image.dtype == np.uint16 else image * np.uint16(257) for image in images]
    channels = max(len(image) for image in images)
    return np.stack([np.broadcast_to(image, (channels, *image.shape[1:])) for image in images])


def answer_fields(answers: Answers, place: int, bundle: Predictor) -> dict[str, object]:
    """Returns the answer to one image as a row's fields, in JSON types."""
    probabilities, classes = answers.probabilities[place].tolist(), bundle.classes
    label = int(answers.labels[place])
    return {
        "label": classes[label],
        "probability": probabilities[label],
        "probabilities": dict(zip(classes, probabilities, strict=True)),
        "decision": bundle.named(answers.decisions[place]),
        "in_domain": None if answers.in_domain is None else bool(answers.in_domain[place]),
    }
