"""A dense ReLU layer before the output layer: of every architecture, and a part of the head."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medtl.errors import ParameterError
from medtl.networks.cutoffs import cut_points, resolve
from medtl.networks.dense_head import DenseHead, put_dense_layer
from medtl.networks.graph import has_parameters
from medtl.networks.partition import cut
from medtl.networks.registry import build, outline
from medtl.training.linear_head import linear_layer

CLASSES, UNITS = 3, 5
# name, image size, images of a case
SOME = [
    ("densenet121", 32, 1),
    ("mobilenet_v2", 32, 1),
    ("squeezenet1_0", 32, 1),
    ("swin_t", 32, 1),
    ("small_resnet", 32, 1),
    ("parallel_cnn", 32, 1),
    ("dual:small_resnet+squeezenet1_1", 64, 1),
    ("late_fusion", 32, 1),
    ("late_fusion", 32, 2),
    ("transmed", 32, 2),
]


@pytest.mark.parametrize(("name", "size", "images"), SOME)
def test_the_cut_head_trains_the_dense_layer_and_freezes_all_before_it(name, size, images):
    plain = build(name, CLASSES, size, seed=4, modalities=images)
    network = build(name, CLASSES, size, seed=4, modalities=images, hidden=UNITS).eval()
    head = resolve(plain, name, "head")
    point = resolve(network, name, "head")
    assert point == head
    blocks = [each.name for each in cut_points(network, "blocks")]
    assert blocks == [each.name for each in cut_points(plain, "blocks")]

    # the body is that of the same seed without the layer
    state = network.state_dict()
    for path, value in plain.state_dict().items():
        if not path.startswith(f"{head.name}."):
            assert torch.equal(state[path], value), path

    divided = cut(network, point, size)
    (dense,) = (each for each in network.modules() if isinstance(each, DenseHead))
    inside = {id(parameter) for parameter in dense.parameters()}
    assert inside <= {id(each) for each in divided.suffix.parameters() if each.requires_grad}
    assert all(path.startswith(f"{head.name}.") for path in divided.suffix.state_dict())
    assert not any(parameter.requires_grad for parameter in divided.prefix.parameters())
    assert dense.hidden.weight.shape[0] == dense.output.weight.shape[1] == UNITS
    assert dense.output.weight.shape[0] == CLASSES
    assert linear_layer(divided.suffix) is None

    shown = torch.rand(2, 3 * images, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = network(shown)
        assert whole.shape == (2, CLASSES)
        torch.testing.assert_close(divided.suffix.eval()(*divided.prefix(shown)), whole)


def test_the_scores_are_those_of_two_linear_layers_with_a_relu_between():
    network = build("small_resnet", CLASSES, 32, seed=0, hidden=UNITS).eval()
    shown = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (features,) = cut(network, resolve(network, "small_resnet", "head"), 32).prefix(shown)
        between = features.flatten(1) @ network.fc.hidden.weight.T + network.fc.hidden.bias
        assert (between < 0).any()
        expected = between.clamp(min=0) @ network.fc.output.weight.T + network.fc.output.bias
        torch.testing.assert_close(network(shown), expected)


def test_the_seed_draws_the_dense_layer():
    one, same, other = (build("small_resnet", 2, 32, seed, hidden=UNITS).fc for seed in (1, 1, 2))
    assert torch.equal(one.hidden.weight, same.hidden.weight)
    assert torch.equal(one.output.weight, same.output.weight)
    assert not torch.equal(one.hidden.weight, other.hidden.weight)


def test_a_cut_inside_the_head_is_refused():
    network = build("small_resnet", 2, 32, seed=0, hidden=UNITS)
    with pytest.raises(ParameterError, match="part of the head: cut at fc"):
        resolve(network, "small_resnet", "fc.output")


FAMILIES = (
    *("alexnet", "convnext_tiny", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t"),
    *("mnasnet0_5", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5"),
    *("swin_v2_t", "vgg11_bn", "vit_b_32"),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_one(name):
    size = {"alexnet": 64, "inception_v3": 75, "maxvit_t": 224}.get(name, 32)
    network = outline(name, size)
    body = {path for path, module in network.named_modules() if has_parameters(module)}
    head = resolve(network, name, "head")
    put_dense_layer(network, UNITS)
    (dense,) = (path for path, each in network.named_modules() if isinstance(each, DenseHead))
    assert resolve(network, name, "head") == head
    assert dense == head.name or dense.startswith(f"{head.name}.")
    after = {path for path, module in network.named_modules() if has_parameters(module)}
    assert after - body == {f"{dense}.hidden", f"{dense}.output"}
    assert isinstance(network.get_submodule(dense).output, nn.Linear)
