"""A backbone: a network whose weights came from somewhere, with the preprocessing they expect."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass

from torch import nn

from medtl.networks.cutpoints import resolve
from medtl.networks.weights import Preprocessing


@dataclass(frozen=True)
class Backbone:
    """A network as it was before any training here; what is trained is always a copy."""

    architecture: str
    weights: str  # where they came from, in the user's words
    network: nn.Module
    preprocessing: Preprocessing

    def copy(self) -> nn.Module:
        """A network of its own, to be cut and trained."""
        return copy.deepcopy(self.network)

    def digest(self) -> str:
        """16 hex digits of all weights but the head's: what a prefix can depend on."""
        head = resolve(self.network, self.architecture, "head").name
        digest = hashlib.sha256(self.architecture.encode())
        for name, value in self.network.state_dict().items():
            if not name.startswith(f"{head}."):
                digest.update(name.encode())
                digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]
