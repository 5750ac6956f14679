"""Identity of a served model, from the files that MLflow stores beside it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from medtl.inference.predictor import CHECKSUMS_FILE, SETTINGS_FILE, WEIGHTS_FILE

MODEL_FILE = "MLmodel"
REGISTERED_FILE = "registered_model_meta"
"""File that MLflow adds to a downloaded registered model, with its name and version."""
DIGITS = 16  # of a digest


@dataclass(frozen=True)
class ModelIdentity:
    """Name, version, run and digest of a served model; None where unknown.

    Attributes:
        model: name of the registered model, else the id of the logged model.
        version: version of the registered model.
        run_id: MLflow run that logged the model.
        digest: first 16 hex digits of the SHA-256 of weights and settings.
    """

    model: str | None
    version: str | None
    run_id: str | None
    digest: str

    @classmethod
    def of(cls, folder: Path) -> ModelIdentity:
        """Reads the identity of the model whose predictor is stored in `folder`.

        MLflow stores it in the folder `artifacts` of the model.
        """
        logged = _values(folder.parents[1] / MODEL_FILE)
        registered = _values(folder.parents[1] / REGISTERED_FILE)
        model = registered.get("model_name") or logged.get("model_id")
        version = registered.get("model_version")
        return cls(
            model=None if model is None else str(model),
            version=None if version is None else str(version),
            run_id=logged.get("run_id"),
            digest=_digest(folder),
        )

    def line(self) -> str:
        """Formats the identity for people: `medtl-chest version 3, digest 0123456789abcdef`."""
        version = f" version {self.version}" if self.version else ""
        return f"{self.model or 'a model without a name'}{version}, digest {self.digest}"


def _values(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text("utf-8")) if file.is_file() else {}


def _digest(folder: Path) -> str:
    stored = folder / CHECKSUMS_FILE
    if stored.exists():
        sums = json.loads(stored.read_text("utf-8"))
        text = sums[WEIGHTS_FILE] + sums[SETTINGS_FILE]
    else:  # models logged before there were checksums
        text = "".join(
            hashlib.sha256((folder / name).read_bytes()).hexdigest()
            for name in (WEIGHTS_FILE, SETTINGS_FILE)
        )
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
