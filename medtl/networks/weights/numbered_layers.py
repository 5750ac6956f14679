"""Numbered layers: names of `nn.Sequential(*network.children())` as those of the network.

RadImageNet (Mei et al. 2022, doi:10.1148/ryai.210315) publishes its ResNet-50, DenseNet-121 and
Inception-V3 for PyTorch so: `backbone.0.weight` is `conv1.weight` of the ResNet, `backbone.4.` its
`layer1.`, and `backbone.0.conv0.` is `features.conv0.` of the DenseNet. Many SimCLR scripts do too.
Layers without tensors count, and an auxiliary head may: the order and the shapes decide, not the
number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

from torch import Tensor, nn

_Shapes = tuple[tuple[int, ...], ...]


def named_by_children(
    network: nn.Module, tensors: Mapping[str, Tensor], parents: Sequence[str]
) -> dict[str, Tensor] | None:
    """Returns the numbered tensors under the network's names; None if there are none.

    Args:
        network: the names are those of its children.
        tensors: of the file.
        parents: modules of the network whose children may be numbered, as `features.`; "" is the
            network itself.
    """
    numbered: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, rest = name.partition(".")
        if number.isdecimal() and rest:
            numbered.setdefault(int(number), {})[rest] = tensor
    if not numbered:
        return None
    theirs = [_shapes(numbered[number]) for number in sorted(numbered)]
    best: dict[str, Tensor] = {}
    for parent in parents:
        children = {
            name: state
            for name, child in network.get_submodule(parent.removesuffix(".")).named_children()
            if (state := child.state_dict())
        }
        ours = [_shapes(state) for state in children.values()]
        renamed: dict[str, Tensor] = {}
        matcher = SequenceMatcher(None, theirs, ours, autojunk=False)
        for first, second, count in matcher.get_matching_blocks():
            layers = sorted(numbered)[first : first + count]
            names = list(children)[second : second + count]
            for layer, name in zip(layers, names, strict=True):
                renamed |= {f"{parent}{name}.{k}": v for k, v in numbered[layer].items()}
        best = max(best, renamed, key=len)
    return best


def _shapes(state: Mapping[str, Tensor]) -> _Shapes:
    """Returns the shapes of a layer's tensors; a first convolution of one channel is as of three.

    Counters of batch norm, which old files lack, are left out.
    """
    return tuple(
        sorted(
            (shape[0], 3, *shape[2:]) if len(shape) == 4 and shape[1] == 1 else tuple(shape)
            for shape in (each.shape for each in state.values())
            if len(shape) > 0
        )
    )
