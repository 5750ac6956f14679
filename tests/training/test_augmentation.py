from __future__ import annotations

import torch

from medtl.training.augmentation import AUGMENTATIONS, Augmentation


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_same_generator_gives_the_same_images_and_another_gives_others():
    images = torch.rand(4, 1, 16, 16, generator=generator(0))
    light = AUGMENTATIONS["light"]
    assert torch.equal(light(images, generator(1)), light(images, generator(1)))
    assert not torch.equal(light(images, generator(1)), light(images, generator(2)))


def test_images_stay_within_their_range_and_shape():
    images = torch.rand(8, 3, 16, 16, generator=generator(0))
    changed = AUGMENTATIONS["flip"](images, generator(1))
    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_no_range_means_no_change():
    still = Augmentation(tilt=0, shift=0, scale=0, exposure=0, noise=0)
    images = torch.rand(2, 1, 9, 9, generator=generator(0)).clamp(min=1e-3)
    torch.testing.assert_close(still(images, generator(1)), images, atol=1e-5, rtol=0)


def test_light_never_mirrors_and_flip_mirrors_about_half():
    bright_left = torch.zeros(200, 1, 8, 8)
    bright_left[..., :4] = 1
    for name, low, high in (("light", 0, 0), ("flip", 70, 130)):
        changed = AUGMENTATIONS[name](bright_left, generator(0))
        mirrored = (changed[..., 4:].mean((1, 2, 3)) > changed[..., :4].mean((1, 2, 3))).sum()
        assert low <= mirrored <= high
