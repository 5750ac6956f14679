"""Weights files: named tensors on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from medtl.errors import MedtlError

WRAPPERS = ("state_dict", "model")  # keys under which training scripts save the network


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads the named tensors of a `.safetensors` file or of one that `torch.save` wrote.

    Of a training checkpoint, those of the network. No pickled code is run.

    Raises:
        MedtlError: the file is damaged, or holds anything but named tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the exceptions of the readers for damaged files are undocumented
        raise MedtlError(
            f"{path} cannot be loaded: it is damaged, or holds more than tensors (which could run "
            "any code); save only the network's state_dict() in it"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise MedtlError(f"{path} is not a state dict; save the network's state_dict()")
    return state
