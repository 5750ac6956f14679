"""Names of layers in Keras, for networks whose papers use them."""

from __future__ import annotations

from itertools import accumulate

from medtl.networks.registry import find

_DENSENET_LAYERS = {
    "densenet121": (6, 12, 24, 16),
    "densenet169": (6, 12, 32, 32),
    "densenet201": (6, 12, 48, 32),
}
_RESNET_BLOCKS = {
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
_VGG_CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
_INCEPTION_BLOCKS = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")


def keras_names(architecture: str) -> dict[str, str]:
    """Maps Keras layer names to torchvision names; empty for architectures Keras does not have.

    Only layers with parameters are listed. Keras numbers the convolutions of InceptionV3 by
    session, so its blocks `mixed0` ... `mixed10` are listed instead, each by its first convolution.
    Networks within another (the halves of a `dual`) are listed under their path.

    >>> keras_names("resnet50")["conv5_block1_1_conv"]
    'layer4.0.conv1'
    >>> keras_names("dual:densenet121+resnet50")["second.conv5_block1_1_conv"]
    'second.layer4.0.conv1'
    """
    if parts := find(architecture).parts:
        return {
            f"{path}.{keras}": f"{path}.{name}"
            for path, within in parts.items()
            for keras, name in keras_names(within).items()
        }
    if architecture in _DENSENET_LAYERS:
        return _densenet(_DENSENET_LAYERS[architecture])
    if architecture in _RESNET_BLOCKS:
        return _resnet(_RESNET_BLOCKS[architecture])
    if architecture in _VGG_CONVOLUTIONS:
        return _vgg(_VGG_CONVOLUTIONS[architecture])
    if architecture == "inception_v3":
        mixed = {f"mixed{n}": f"Mixed_{block}" for n, block in enumerate(_INCEPTION_BLOCKS)}
        return {**mixed, "predictions": "fc"}
    if architecture == "mobilenet_v2":
        return _mobilenet_v2()
    return {}


def _densenet(layers: tuple[int, ...]) -> dict[str, str]:
    names = {"conv1_conv": "features.conv0", "conv1_bn": "features.norm0"}
    for block, count in enumerate(layers, start=1):
        for layer in range(1, count + 1):
            keras = f"conv{block + 1}_block{layer}"
            torchvision = f"features.denseblock{block}.denselayer{layer}"
            names[f"{keras}_0_bn"] = f"{torchvision}.norm1"
            names[f"{keras}_1_conv"] = f"{torchvision}.conv1"
            names[f"{keras}_1_bn"] = f"{torchvision}.norm2"
            names[f"{keras}_2_conv"] = f"{torchvision}.conv2"
        if block < len(layers):
            names[f"pool{block + 1}_bn"] = f"features.transition{block}.norm"
            names[f"pool{block + 1}_conv"] = f"features.transition{block}.conv"
    return {**names, "bn": "features.norm5", "predictions": "classifier"}


def _resnet(blocks: tuple[int, ...]) -> dict[str, str]:
    names = {"conv1_conv": "conv1", "conv1_bn": "bn1"}
    for stage, count in enumerate(blocks, start=1):
        for block in range(1, count + 1):
            keras = f"conv{stage + 1}_block{block}"
            torchvision = f"layer{stage}.{block - 1}"
            if block == 1:  # the convolution on the shortcut
                names[f"{keras}_0_conv"] = f"{torchvision}.downsample.0"
                names[f"{keras}_0_bn"] = f"{torchvision}.downsample.1"
            for k in (1, 2, 3):
                names[f"{keras}_{k}_conv"] = f"{torchvision}.conv{k}"
                names[f"{keras}_{k}_bn"] = f"{torchvision}.bn{k}"
    return {**names, "predictions": "fc"}


def _vgg(convolutions: tuple[int, ...]) -> dict[str, str]:
    names = {}
    # Each convolution is followed by a ReLU, each block by a pooling layer.
    starts = accumulate((2 * count + 1 for count in convolutions), initial=0)
    for block, (start, count) in enumerate(zip(starts, convolutions, strict=False), start=1):
        for k in range(count):
            names[f"block{block}_conv{k + 1}"] = f"features.{start + 2 * k}"
    return {**names, "fc1": "classifier.0", "fc2": "classifier.3", "predictions": "classifier.6"}


def _mobilenet_v2() -> dict[str, str]:
    names = {"Conv1": "features.0.0", "bn_Conv1": "features.0.1"}
    # The first block has no expansion: depthwise, then projection.
    parts = {"depthwise": "0.0", "depthwise_BN": "0.1", "project": "1", "project_BN": "2"}
    for part, place in parts.items():
        names[f"expanded_conv_{part}"] = f"features.1.conv.{place}"
    parts = {
        "expand": "0.0",
        "expand_BN": "0.1",
        "depthwise": "1.0",
        "depthwise_BN": "1.1",
        "project": "2",
        "project_BN": "3",
    }
    for block in range(1, 17):
        for part, place in parts.items():
            names[f"block_{block}_{part}"] = f"features.{block + 1}.conv.{place}"
    return {
        **names,
        "Conv_1": "features.18.0",
        "Conv_1_bn": "features.18.1",
        "predictions": "classifier.1",
    }
