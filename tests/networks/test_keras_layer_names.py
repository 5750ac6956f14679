"""Keras names of layers, as papers use them."""

from __future__ import annotations

import pytest
import torchvision

from medtl.networks.cutoffs import resolve
from medtl.networks.graph import trace
from medtl.networks.keras_layer_names import keras_names

KERAS_ARCHITECTURES = [
    *("densenet121", "densenet169", "densenet201", "inception_v3", "mobilenet_v2"),
    *("resnet50", "resnet101", "resnet152", "vgg16", "vgg19"),
]


@pytest.mark.parametrize("architecture", KERAS_ARCHITECTURES)
def test_every_keras_name_is_a_layer_and_every_layer_has_one(architecture: str) -> None:
    options = {"init_weights": False} if architecture == "inception_v3" else {}
    network = torchvision.models.get_model(architecture, **options)
    layers = trace(network).layers
    names = keras_names(architecture)
    assert len(set(names.values())) == len(names)
    if architecture == "inception_v3":
        covered = {layer for layer in layers if layer.startswith(tuple(names.values()))}
        assert {layer.split(".")[0] for layer in layers.keys() - covered} == {
            *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
        }
    elif architecture.startswith("resnet"):
        # Keras computes the shortcut before the last convolution, torchvision after it.
        assert set(names.values()) == set(layers)
    else:
        assert list(names.values()) == list(layers)


@pytest.mark.parametrize(
    ("architecture", "keras", "torchvision_name"),
    [
        ("densenet121", "conv5_block16_2_conv", "features.denseblock4.denselayer16.conv2"),
        ("densenet121", "pool3_conv", "features.transition2.conv"),
        ("densenet121", "conv1/bn", "features.norm0"),
        ("resnet50", "conv5_block1_0_conv", "layer4.0.downsample.0"),
        ("vgg16", "block5_conv1", "features.24"),
        ("vgg19", "block5_conv4", "features.34"),
        ("inception_v3", "mixed7", "Mixed_6e"),
        ("mobilenet_v2", "block_16_depthwise_BN", "features.17.conv.1.1"),
    ],
)
def test_papers_names(architecture: str, keras: str, torchvision_name: str) -> None:
    options = {"init_weights": False} if architecture == "inception_v3" else {}
    network = torchvision.models.get_model(architecture, **options)
    point = resolve(network, architecture, keras)
    assert point.name == torchvision_name
    assert point == resolve(network, architecture, torchvision_name)


def test_architectures_that_keras_does_not_have() -> None:
    assert keras_names("swin_t") == {}
