"""Handler of the served model: image files in, one row of answers per sample out."""

from __future__ import annotations

import base64
import dataclasses
import sys
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext

from medtl.errors import MedtlError
from medtl.imaging.bounded_decoding import bounded_decoders
from medtl.imaging.pixels import UnreadableImage
from medtl.inference.predictor import Answers, Predictor
from medtl.serving.audit import AuditLog, file_hash, open_audit_log, without_details
from medtl.serving.micro_batching import MicroBatcher
from medtl.serving.model_identity import ModelIdentity
from medtl.serving.request_images import FileReader
from medtl.serving.request_parsing import (
    EXPLAIN,
    MOST_BYTES,
    MOST_ROWS,
    REQUEST_ID,
    Parameters,
    RefusedRequest,
    check_time,
    checked_id,
    file_bytes,
    install_request_handler,
    is_server,
)
from medtl.serving.self_test import run_self_test

BUNDLE = "bundle"  # name of the artifact
COLUMN = "image"  # of a case: image_MODALITY, a column each
PREDICTED = (
    "label", "probability", "probabilities", "decision", "in_domain", "prediction_set", "error",
)  # fmt: skip
IDENTITY = ("model", "version", "run_id", REQUEST_ID)
FIELDS = (*PREDICTED, *IDENTITY)
HEATMAP = "heatmap"
CHUNK = 32  # images of a request that are in memory at a time
IMAGES_A_CORE = 2  # per forward pass; fastest of 1 to 16 for MobileNetV2 at 224 px on two cores


class ServedModel(PythonModel):
    """MLflow model that answers each row of a DataFrame with image files.

    The column `image` holds the bytes of a file; rows of cases have a column `image_MODALITY` for
    each image.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the predictor that was logged with the model, and runs its self-test.

        A scoring server that cannot serve the model ends in one line.

        Raises:
            MedtlError: the files are damaged, or the self-test fails.
        """
        try:
            self.load(Path(context.artifacts[BUNDLE]))
        except MedtlError as error:
            if is_server():
                sys.exit(f"medtl: {error}")
            raise

    def load(self, folder: Path) -> None:
        """Loads the predictor that is stored in `folder`, and runs its self-test.

        Raises:
            MedtlError: the files are damaged, or the self-test fails.
        """
        self.bundle = Predictor.load(folder)
        self.identity = ModelIdentity.of(folder)
        self.audit: AuditLog | None = None
        threads = torch.get_num_threads()
        self.passes = MicroBatcher(self.bundle.answer, IMAGES_A_CORE * threads)
        self.passes.alone(run_self_test, folder, self.bundle)
        if is_server():
            self.audit = open_audit_log()
            install_request_handler(self.answers, dataclasses.asdict(self.identity))
            bounded_decoders().start()
            alone = self.passes.choose_threads(np.zeros((1, *self.bundle.shape), np.uint8))
            line = (
                f"medtl: serving {self.identity.line()}, {threads} threads, {alone} for one image"
            )
            print(line, file=sys.stderr, flush=True)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Answers each row of `model_input`, in order.

        Columns are `label`, `probability` (of the label, calibrated), `probabilities` (by class),
        `decision` (at the operating point), `in_domain` (None if the model has no reference),
        `prediction_set` (names of classes, the most probable first; None if the model has none),
        `error` (None, or why the file could not be read; the columns before are None then),
        `model`, `version`, `run_id` and `request_id`. With the parameter `explain` also `heatmap`:
        a PNG in base64 that shows the places that the label depends on. The parameter `request_id`
        is returned; if it is empty, a new one is made.

        Args:
            context: not used.
            model_input: bytes of files, or their base64 as text.
            params: `explain`, `request_id`.

        Raises:
            RefusedRequest: no rows, too many rows or bytes, or the time limit of a server is over.
        """
        # an optional column may be absent
        table = model_input.reindex(columns=columns(self.bundle.modalities)).astype(object)
        rows = table.where(table.notna(), None).to_numpy().tolist()
        samples = [[file_bytes(value) for value in row] for row in rows]
        given = params or {}
        parameters = Parameters(bool(given.get(EXPLAIN)), checked_id(given.get(REQUEST_ID) or ""))
        # objects, so that None does not become NaN, which is not JSON
        return pd.DataFrame(self.answers(samples, parameters), dtype=object)

    def answers(
        self, samples: list[list[object]], parameters: Parameters
    ) -> list[dict[str, object]]:
        """Returns the rows of `predict` for samples of image files, one per column.

        Raises:
            RefusedRequest: as for `predict`.
            MlflowException: the audit log cannot be written.
        """
        began = time.perf_counter()
        check_request(samples, columns(self.bundle.modalities))
        origin = self.origin(parameters.request_id or uuid.uuid4().hex)
        rows: list[dict[str, object]] = []
        distances: list[float | None] = []
        with FileReader(self.bundle.preprocessing.rendering, self.masked) as reader:
            for start in range(0, len(samples), CHUNK):
                decoded = reader.read(samples[start : start + CHUNK])
                answered, measured = self.answered(decoded, parameters.explain, origin)
                rows += answered
                distances += measured
        if self.audit is not None:
            seconds = round(time.perf_counter() - began, 4)
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            try:
                self.audit.write(
                    {"time": now, "images": [file_hash(file) for file in sample]}
                    | {name: row[name] for name in FIELDS}
                    | {"error": without_details(row["error"]), "distance": distance}
                    | {"seconds": seconds, "digest": self.identity.digest}
                    for sample, row, distance in zip(samples, rows, distances, strict=True)
                )
            except MedtlError as error:
                raise MlflowException(str(error)) from error
        return rows

    @property
    def masked(self) -> bool:
        """True if cases may lack images, which are all 0 then."""
        return bool(self.bundle.modalities) and self.bundle.missing == "mask"

    def origin(self, request_id: str) -> dict[str, str | None]:
        """Returns the fields `IDENTITY` of the answers to a request."""
        known = dataclasses.asdict(self.identity) | {REQUEST_ID: request_id}
        return {name: known[name] for name in IDENTITY}

    def answered(
        self,
        decoded: Iterable[list[np.ndarray | UnreadableImage]],
        explain: bool,
        origin: dict[str, str | None],
    ) -> tuple[list[dict[str, object]], list[float | None]]:
        """Returns the rows of a chunk of samples, and the distance of each, None without one.

        Args:
            decoded: the pixels of each image of each sample, or the error (see `FileReader`).
            explain: true adds heat maps.
            origin: fields of every row.

        Raises:
            RefusedRequest: the network has no heat map, or the time limit of a server is over.
        """
        fields = (*FIELDS, HEATMAP) if explain else FIELDS
        rows: list[dict[str, object]] = []
        images: list[np.ndarray] = []
        readable = []
        for index, sample in enumerate(decoded):
            check_time()
            pixels = [image for image in sample if isinstance(image, np.ndarray)]
            row: dict[str, object] = dict.fromkeys(fields) | origin
            row["error"] = self._fault(sample, pixels)
            rows.append(row)
            if row["error"] is None:
                images += pixels
                readable.append((index, row))
        distances: list[float | None] = [None] * len(rows)
        if images:
            stored = as_one_array(images)
            if self.bundle.modalities:
                stored = stored.reshape(len(readable), -1, *stored.shape[1:])
            answers = self.passes.answer(stored)
            heatmaps = self._heatmaps(stored, answers.labels) if explain else []
            for place, (index, row) in enumerate(readable):
                row.update(answer_fields(answers, place, self.bundle))
                if answers.distances is not None:
                    distances[index] = round(float(answers.distances[place]), 4)
                if explain:
                    row[HEATMAP] = base64.b64encode(heatmaps[place]).decode("ascii")
        return rows, distances

    def _fault(
        self, sample: list[np.ndarray | UnreadableImage], pixels: list[np.ndarray]
    ) -> str | None:
        """Returns the error of a sample, with the column of its image; None if it is readable."""
        for name, image in zip(columns(self.bundle.modalities), sample, strict=True):
            if isinstance(image, UnreadableImage):
                return f"{name}: {image}" if self.bundle.modalities else str(image)
        if not any(image.any() for image in pixels) and self.bundle.modalities:
            return "all images of the case are missing"
        return None

    def _heatmaps(self, stored: np.ndarray, labels: np.ndarray) -> list[bytes]:
        # a hybrid's map takes many passes, between which other requests are answered
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
    """Refuses a request without rows, or with too many rows or bytes.

    Args:
        samples: files of each row, one per column.
        names: names of the columns.

    Raises:
        RefusedRequest: as said above.
    """
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
    """Stacks images [1 or 3, S, S], uint8 or uint16, to [B, C, S, S] of the widest type."""
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
        "prediction_set": None
        if bundle.sets is None
        else bundle.sets.names(answers.probabilities[place], classes),
    }
