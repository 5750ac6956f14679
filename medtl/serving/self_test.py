"""Self-test of a stored model: its logits on stored drawn images, compared at start-up.

Another processor or library version changes logits by rounding. A larger difference means that the
scores on the model card do not hold on this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from medtl.errors import MedtlError
from medtl.inference.predictor import Predictor

SELF_TEST_FILE = "self_test.safetensors"
IMAGES, LOGITS = "images", "logits"
LARGEST_DIFFERENCE = 1e-3
"""Largest difference of a probability from the stored one. Rounding changes it by about 1e-6."""


def write_self_test(folder: Path, predictor: Predictor, sample: Sequence[bytes]) -> None:
    """Stores the pixels of one sample's image files and the logits of `predictor`."""
    rendering = predictor.preprocessing.rendering
    # channels are last in a decoded colour image, and safetensors stores contiguous tensors only
    images = np.ascontiguousarray([rendering.of_file(file) for file in sample])
    if predictor.modalities:
        images = images[None]
    logits = predictor.scores(images)
    tensors = {IMAGES: torch.from_numpy(images), LOGITS: torch.from_numpy(logits)}
    save_file(tensors, folder / SELF_TEST_FILE)


def run_self_test(folder: Path, predictor: Predictor) -> None:
    """Compares probabilities of the stored sample with the stored ones.

    Models logged before there were self-tests pass. Also runs the slow first forward pass, so that
    no request waits for it.

    Raises:
        MedtlError: a probability differs by more than `LARGEST_DIFFERENCE`.
    """
    file = folder / SELF_TEST_FILE
    if not file.exists():
        predictor.answer(np.zeros((1, *predictor.shape), np.uint8))
        return
    try:
        tensors = load_file(file)
        images, stored = tensors[IMAGES].numpy(), tensors[LOGITS].numpy()
    except (OSError, KeyError, SafetensorError) as error:
        raise MedtlError(f"the self-test {file} is damaged: log the model again") from error
    expected = predictor.probabilities(stored, predictor.temperature)
    difference = np.abs(predictor.answer(images).probabilities - expected).max()
    if not difference <= LARGEST_DIFFERENCE:
        raise MedtlError(
            f"this machine computes other scores: a probability differs by {difference:.2g} from "
            f"the one stored with the model (at most {LARGEST_DIFFERENCE:g}); install the versions "
            "of torch and torchvision in its requirements.txt"
        )
