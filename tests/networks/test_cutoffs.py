"""Naming cut points: blocks, layers, and the names that a user may give."""

from __future__ import annotations

import pytest
import torchvision
from torch import nn

from medtl.errors import ParameterError
from medtl.networks.cutoffs import cut_points, halfway, resolve


def network_of(architecture: str) -> nn.Module:
    return torchvision.models.get_model(architecture)


def names(architecture: str, kind: str) -> list[str]:
    return [point.name for point in cut_points(network_of(architecture), kind)]


@pytest.mark.parametrize(
    ("architecture", "blocks"),
    [
        ("mobilenet_v2", [*(f"features.{n}" for n in range(19)), "classifier.1"]),
        (
            "vgg16",
            [
                *("features.0", "features.5", "features.10", "features.17", "features.24"),
                *("classifier.0", "classifier.3", "classifier.6"),
            ],
        ),
        (
            "alexnet",
            [
                *("features.0", "features.3", "features.6"),
                *("classifier.1", "classifier.4", "classifier.6"),
            ],
        ),
        (
            "resnet18",
            [
                "conv1",
                *(f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)),
                "fc",
            ],
        ),
        (
            "densenet121",
            [
                *("features.conv0", "features.denseblock1", "features.transition1"),
                *("features.denseblock2", "features.transition2", "features.denseblock3"),
                *("features.transition3", "features.denseblock4", "features.norm5", "classifier"),
            ],
        ),
        (
            "vit_b_32",
            [
                "conv_proj",
                *(f"encoder.layers.encoder_layer_{n}" for n in range(12)),
                *("encoder.ln", "heads.head"),
            ],
        ),
    ],
)
def test_blocks(architecture: str, blocks: list[str]) -> None:
    assert names(architecture, "blocks") == blocks


@pytest.mark.parametrize("architecture", ["densenet121", "convnext_tiny", "googlenet", "vit_b_32"])
def test_layers_are_ordered_and_hold_every_parameter_once(architecture: str) -> None:
    options = {"init_weights": False, "aux_logits": False} if architecture == "googlenet" else {}
    network = torchvision.models.get_model(architecture, **options)
    points = cut_points(network, "layers")
    positions = [point.position for point in points]
    assert positions == sorted(set(positions))
    assert positions[0] == 0
    layers = {point.name for point in points}
    for parameter, _ in network.named_parameters():
        path = parameter
        while path and path not in layers:
            path = path.rpartition(".")[0]
        assert path, f"{parameter} belongs to no layer"


def test_parameters_that_a_module_reads_itself_are_layers() -> None:
    assert names("vit_b_32", "layers")[:3] == ["conv_proj", "class_token", "encoder.pos_embedding"]
    # The layer scale is used after the block's convolutions, whatever the code names first.
    assert names("convnext_tiny", "layers")[2:7] == [
        *("features.1.0.block.0", "features.1.0.block.2", "features.1.0.block.3"),
        *("features.1.0.block.5", "features.1.0.layer_scale"),
    ]


def test_both_kinds_begin_and_end_alike() -> None:
    for architecture in ("mobilenet_v2", "squeezenet1_1", "swin_t"):
        network = network_of(architecture)
        blocks, layers = cut_points(network, "blocks"), cut_points(network, "layers")
        assert blocks[0].position == layers[0].position == 0
        assert blocks[-1] == layers[-1] == resolve(network, architecture, "head")
        assert blocks[0] == resolve(network, architecture, "all")


@pytest.mark.parametrize(
    ("architecture", "cutoff", "first_layer"),
    [
        ("resnet18", "layer4", "layer4.0.conv1"),
        ("resnet18", "layer4.1", "layer4.1.conv1"),
        ("mobilenet_v2", "features.18", "features.18.0"),
        ("swin_t", "features.3.1.attn", "features.3.1.attn.relative_position_bias_table"),
        ("vit_b_32", "encoder", "encoder.pos_embedding"),
        ("inception_v3", "Mixed_7c", "Mixed_7c.branch1x1.conv"),
    ],
)
def test_a_module_stands_for_the_layers_in_it(
    architecture: str, cutoff: str, first_layer: str
) -> None:
    options = {"init_weights": False} if architecture == "inception_v3" else {}
    network = torchvision.models.get_model(architecture, **options)
    point = resolve(network, architecture, cutoff)
    assert point.name == cutoff
    layers = cut_points(network, "layers")
    assert next(p for p in layers if p.position >= point.position).name == first_layer


@pytest.mark.parametrize(
    ("architecture", "cutoff", "answer"),
    [
        ("densenet121", "features.denseblock4.denselayer16.conv3", r"denselayer16\.conv2"),
        ("densenet121", "conv5_block17_2_conv", "conv5_block1._2_conv"),
        ("resnet18", "Layer4", r"layer4"),
        ("resnet18", "", "the nearest are head, all$"),
        ("resnet18", "maxpool", "it has no parameters"),
        ("swin_t", "features.1.0.attn.proj", r"cut at features\.1\.0\.attn\.qkv"),
        (
            "vit_b_32",
            "encoder.layers.encoder_layer_3.self_attention.out_proj",
            r"cut at encoder\.layers\.encoder_layer_3\.self_attention$",
        ),
    ],
)
def test_a_wrong_name_is_answered_with_a_right_one(
    architecture: str, cutoff: str, answer: str
) -> None:
    with pytest.raises(ParameterError, match=answer):
        resolve(network_of(architecture), architecture, cutoff)


@pytest.mark.parametrize(
    ("cutoff", "middle"),
    [
        ("head", "features.10"),
        ("features.14", "features.7"),
        ("features.1", None),
        ("features.2", "features.1"),
    ],
)
def test_half_way_is_the_block_in_the_middle_of_those_before(
    cutoff: str, middle: str | None
) -> None:
    network = network_of("mobilenet_v2")
    found = halfway(network, resolve(network, "mobilenet_v2", cutoff))
    assert (found.name if found else None) == middle
