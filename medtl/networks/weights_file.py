"""Weights files: named tensors on disk."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from medtl.errors import MedtlError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pth.tar")
"""Ends of the names of weights files."""


class _Settings(dict[str, object]):
    """Stands for the classes in which Lightning saves the settings of a training."""


# The constructor of numpy's numbers.
_NUMBER = cast(Callable[..., object], np.float64(0).__reduce__()[0])

# What training scripts save beside the tensors, and what runs no code of the file: settings of the
# command line, scores, paths.
_HARMLESS: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
    argparse.Namespace,
    _NUMBER,
    (_NUMBER, "numpy.core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64, np.bool_)),
    (pathlib.PurePosixPath, "pathlib.PosixPath"),
    (pathlib.PurePosixPath, "pathlib._local.PosixPath"),
    (pathlib.PureWindowsPath, "pathlib.WindowsPath"),
    (_Settings, "pytorch_lightning.utilities.parsing.AttributeDict"),
    (_Settings, "lightning.pytorch.utilities.parsing.AttributeDict"),
    (_Settings, "lightning.fabric.utilities.data.AttributeDict"),
    (_Settings, "lightning_fabric.utilities.data.AttributeDict"),
]


_CONVERSION = (
    ". If you trust it, keep its tensors only, where it was made: "
    "model = torch.load(FILE, weights_only=False); torch.save(model.state_dict(), 'weights.pth')"
)


def is_weights_file(path: Path) -> bool:
    """Returns whether a file is there whose name is that of a weights file."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads the named tensors of a `.safetensors` file or of one that `torch.save` wrote.

    Those of a training checkpoint are named with the keys that lead to them, as
    `teacher.backbone.conv1.weight`. No pickled code is run.

    Raises:
        MedtlError: the file is damaged, holds no tensors, or holds objects that could run code.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_HARMLESS):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the exceptions of the readers for damaged files are undocumented
        raise MedtlError(
            f"{path} cannot be loaded: it is damaged, or holds more than tensors (which could run "
            f"any code){'' if path.suffix == '.safetensors' else _CONVERSION}"
        ) from error
    tensors = dict(_named_tensors(state, ""))
    if not tensors:
        raise MedtlError(f"{path} is not a state dict; save the network's state_dict()")
    return tensors


def _named_tensors(value: object, path: str) -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors within nested dicts by the keys that lead to them, joined by dots."""
    if isinstance(value, Tensor):
        if path:
            yield path, value.detach()
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _named_tensors(each, f"{path}.{key}" if path else str(key))
