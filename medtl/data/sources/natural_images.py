"""Natural images: a folder of the user's, or patches of the two photographs that come along.

Converted to the squares and channels of the medical images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from medtl.data.image_files import images_below
from medtl.errors import MedtlError, ParameterError
from medtl.imaging.decode import decode
from medtl.imaging.pixels import UnreadableImage
from medtl.imaging.rendering import Rendering
from medtl.progress import progress

LEAST_SHARE = 0.25  # of a photograph's shorter side that the side of a patch has


def natural_images(
    folder: str,
    count: int,
    image_size: int | Rendering,
    channels: int,
    seed: int,
    unreadable: str = "refuse",
) -> np.ndarray:
    """Reads natural images as squares: uint8 [N, channels, S, S].

    Args:
        folder: where to look, at any depth; empty for `count` patches, of drawn place and size, of
            the two photographs (china, flower) that scikit-learn ships.
        count: the most images; of a folder with more, as many are drawn.
        image_size: side S of the squares in pixels, or a rendering; its window is left out.
        channels: 3, or 1: colour then becomes grey by its luma (ITU-R 601).
        seed: of what is drawn.
        unreadable: images that cannot be decoded: `refuse` or `skip`.

    Raises:
        ParameterError: there is no such folder, or no image in it.
        MedtlError: an image cannot be read.
    """
    random = np.random.default_rng(seed)
    images = _of_folder(folder, count, random, unreadable) if folder else _patches(count, random)
    rendering = Rendering.of(image_size)
    return np.stack([rendering.square(_in_channels(image, channels)) for image in images])


def _of_folder(
    folder: str, count: int, random: np.random.Generator, unreadable: str
) -> list[np.ndarray]:
    root = Path(folder).expanduser()
    files = list(images_below(root)) if root.is_dir() else []
    if not files:
        raise ParameterError(
            "images", folder, "a folder with images, or empty for patches of two photographs"
        )
    if len(files) > count:
        files = [files[index] for index in np.sort(random.choice(len(files), count, False))]
    images = []
    for file in progress(files, len(files), "decoding natural images"):
        try:
            images.append(decode(file.read_bytes()))
        except (UnreadableImage, OSError) as error:
            if unreadable == "refuse":
                reason = " ".join(str(error).split())
                raise MedtlError(
                    f"{file} cannot be read ({reason}); mend or remove it, or pass unreadable=skip"
                ) from error
    if not images:
        raise MedtlError(f"none of the images drawn from {folder} can be read")
    return images


def _patches(count: int, random: np.random.Generator) -> list[np.ndarray]:
    # scikit-learn takes a second to import, and only this needs it
    from sklearn.datasets import load_sample_image

    photographs = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    patches = []
    for number in range(count):
        photograph = photographs[number % 2]
        shorter = min(photograph.shape[:2])
        side = random.integers(round(LEAST_SHARE * shorter), shorter, endpoint=True)
        top, left = (random.integers(extent - side + 1) for extent in photograph.shape[:2])
        patches.append(photograph[top : top + side, left : left + side])
    return patches


def _in_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Converts to 8 bits, [H, W] for one channel and [H, W, 3] for three."""
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return np.asarray(Image.fromarray(pixels).convert("L" if channels == 1 else "RGB"))
