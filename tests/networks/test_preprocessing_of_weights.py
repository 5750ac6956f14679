"""Interpolation and crop travel with the weights: timm's as it states them."""

from __future__ import annotations

import pytest

from medtl.imaging.rendering import Rendering
from medtl.networks.pretrained import preprocessing


@pytest.mark.parametrize(
    ("architecture", "rendering"),
    [
        ("mobilenet_v2", Rendering(224)),
        ("small_resnet", None),
        ("timm:vit_small_patch14_dinov2", Rendering(518, interpolation="bicubic")),
        ("timm:resnet18.a1_in1k", Rendering(224, interpolation="bicubic", crop=0.95)),
        ("timm:resnet18.tv_in1k", Rendering(224, crop=0.875)),
    ],
)
def test_rendering_that_weights_expect(architecture, rendering):
    found = preprocessing(architecture).rendering
    assert found == (rendering or Rendering(found.image_size))
