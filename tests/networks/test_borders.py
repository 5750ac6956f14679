"""What crosses a cut, on small networks that show one kind of crossing each."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from medtl.errors import MedtlError
from medtl.networks.cutoffs import CutPoint, cut_points
from medtl.networks.graph import trace
from medtl.networks.partition import Border, borders, cut

SIZE = 8


class Windows(nn.Module):
    """Folds four windows of each image into the batch, as window attention may."""

    def __init__(self, image_by_image: bool) -> None:
        super().__init__()
        self.image_by_image = image_by_image
        self.stem = nn.Conv2d(3, 5, 1)
        self.mix = nn.Conv1d(5, 5, 3, padding=1)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        batch, channels, height, width = x.shape
        x = x.view(batch, channels, 2, height // 2, 2, width // 2)
        order = (0, 2, 4, 1, 3, 5) if self.image_by_image else (2, 4, 0, 1, 3, 5)
        x = x.permute(order).reshape(4 * batch, channels, -1)
        x = self.mix(x)
        return self.head(x.reshape(batch, 4, channels, -1).mean((1, 3)))


class Bias(nn.Module):
    """Adds a learned bias that does not depend on the images, as relative positions do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("coordinates", torch.linspace(-1, 1, 3))
        self.position = nn.Linear(3, 3)
        self.stem = nn.Linear(3, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        bias = self.position(self.coordinates)
        return self.head(self.stem(x.mean((2, 3))) + bias)


class SequenceFirst(nn.Module):
    """Puts the batch on the second axis."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 1)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x).flatten(2).permute(2, 0, 1)).mean(0)


def border_at(network: nn.Module, name: str) -> tuple[Border, CutPoint]:
    point = next(p for p in cut_points(network, "layers") if p.name == name)
    return borders(trace(network), [point], SIZE)[0], point


def joined(network: nn.Module, point: CutPoint, count: int) -> None:
    batch = torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    halves = cut(network, point, SIZE)
    crossing = halves.prefix(batch)
    assert all(len(tensor) == count for tensor in crossing)
    torch.testing.assert_close(halves.suffix(*crossing), network(batch))


def test_windows_are_unfolded_and_the_batch_is_counted_anew() -> None:
    network = Windows(image_by_image=True)
    border, point = border_at(network, "mix")
    assert list(border.folds.values()) == [4]
    assert border.shapes == ((4, 5, 16),)
    assert 1 in border.sizes.values()
    for count in (1, 2, 5):
        joined(network, point, count)


def test_windows_of_several_images_side_by_side_cannot_be_cut() -> None:
    with pytest.raises(MedtlError, match=r"Windows cannot be cut at mix: reshape crosses"):
        border_at(Windows(image_by_image=False), "mix")


def test_what_does_not_depend_on_the_images_is_kept_in_the_suffix() -> None:
    network = Bias()
    border, point = border_at(network, "stem")
    (constant,) = border.constants.values()
    torch.testing.assert_close(constant, network.position(network.coordinates))
    joined(network, point, 3)
    suffix = cut(network, point, SIZE).suffix
    assert set(suffix.state_dict()) == {"stem.weight", "stem.bias", "head.weight", "head.bias"}
    assert len(list(suffix.buffers())) == 1


def test_a_batch_on_another_axis_cannot_be_cut() -> None:
    with pytest.raises(MedtlError, match="SequenceFirst cannot be cut at head"):
        border_at(SequenceFirst(), "head")
