"""Recall and false pairs of the data report's near-copy search."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.fundus import draw_eye
from medtl.data.quality.near_duplicates import copies_of, with_copies
from medtl.data.quality.thumbnails import ImageRows, looks_of
from medtl.data.sources.phantoms import chest_xray
from medtl.imaging.decode import decode
from medtl.imaging.pixels import square
from medtl.reporting.plots.data_quality import copies_sheet

CHANGES = (
    "recompressed",
    "halved",
    "brightened",
    "cut",
    "all but halved",
    "turned",
    "mirrored",
    "turned and recompressed",
)
FORMATS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm")
SHOWN = 40  # pairs in the figure


@dataclass(frozen=True)
class Found:
    """Result of the search among N images and M changed copies of some of them.

    Attributes:
        recall: share of copies grouped with their image, by kind of change.
        others: pairs of different images, in the format of `copies_of`.
        seconds: CPU time for reading all images and searching.
    """

    recall: dict[str, float]
    others: pd.DataFrame
    seconds: float


def changed(image: Image.Image, change: str, random: np.random.Generator) -> Image.Image:
    """Returns a changed copy of an RGB image.

    `cut` removes up to 2 % of each side; `brightened` also lowers the contrast; `turned` is by 90,
    180 or 270 degrees, and `mirrored` along one of the axes.
    """
    width, height = image.size
    if change == "recompressed":
        file = io.BytesIO()
        image.save(file, "JPEG", quality=50)
        return Image.open(file).convert("RGB")
    if change == "halved":
        return image.resize((max(8, width // 2), max(8, height // 2)), Image.Resampling.BILINEAR)
    if change == "brightened":
        return Image.fromarray((np.asarray(image) * 0.85 + 25).clip(0, 255).astype(np.uint8))
    if change == "cut":
        sides = [width, height, width, height]
        left, top, right, bottom = (random.uniform(0, 0.02, 4) * sides).round()
        return image.crop((left, top, width - right, height - bottom))
    if change == "mirrored":
        along = random.choice([Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM])
        return image.transpose(along)
    if change == "turned":
        return image.rotate(90 * int(random.integers(1, 4)), expand=True)
    steps = ("cut", "brightened", "recompressed")
    for each in ("turned", "recompressed") if change == "turned and recompressed" else steps:
        image = changed(image, each, random)
    return image


def search(
    images: Sequence[Image.Image], side: int, each: int, seed: int
) -> tuple[Found, ImageRows]:
    """Adds `each` copies of every change (at most a third of the images), then searches."""
    random = np.random.default_rng(seed)
    of_each = min(each, len(images) // (3 * len(CHANGES)))
    origin = random.choice(len(images), of_each * len(CHANGES), replace=False)
    change = np.repeat(CHANGES, of_each)
    copies = (changed(images[at], kind, random) for at, kind in zip(origin, change, strict=True))
    squares = [square(np.asarray(image), side) for image in (*images, *copies)]
    count = len(squares)
    contents = [each.tobytes() for each in squares]
    several = ImageRows(
        frame=pd.DataFrame({"content": contents}),
        labels=np.zeros(count, np.int64),
        patients=np.arange(count),
        rows=np.arange(count),
        array=np.stack(squares),
    )
    start = time.process_time()
    pairs = copies_of(several, looks_of(several)).pairs
    seconds = time.process_time() - start
    group = with_copies(pairs, count)
    together = group[len(images) :] == group[origin]
    recall = {kind: float(together[change == kind].mean()) for kind in CHANGES if of_each}
    source = np.concatenate([np.arange(len(images)), origin])
    first, second = (source[pairs[side].to_numpy(int)] for side in ("first", "second"))
    return Found(recall, pairs[first != second], seconds), several


def read(folder: Path) -> Iterator[Image.Image]:
    """Yields every image under a folder, in the order of the names."""
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in FORMATS:
            pixels = decode(file.read_bytes())
            grey = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
            yield Image.fromarray(grey.squeeze()).convert("RGB")


def _chest(random: np.random.Generator, side: int) -> Image.Image:
    grey = chest_xray.draw(random, chest_xray.Anatomy.drawn(random), (), side)
    return Image.fromarray(grey).convert("RGB")


@click.command()
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="folder of images; by default distinct synthetic ones",
)
@click.option("--drawn", default="eyes", type=click.Choice(["eyes", "chests"]))
@click.option("--count", default=600, help="images to draw")
@click.option("--cameras", default=1, help="number of camera frames of synthetic images, at most 3")
@click.option("--each", default=40, help="copies of each kind")
@click.option("--side", default=224, help="side of the decoded square images, in pixels")
@click.option("--seed", default=0, help="seed of the synthetic images and of the copied ones")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="PNG file of an even sample of the pairs that are not added copies",
)
def copies(
    data: Path | None,
    drawn: str,
    count: int,
    cameras: int,
    each: int,
    side: int,
    seed: int,
    picture: Path | None,
) -> None:
    """Measures recall and false pairs of the near-copy search on added copies."""
    if data is None:
        random = np.random.default_rng([seed, cameras])
        if drawn == "eyes":
            images = [draw_eye(random, side, cameras) for _ in range(count)]
        else:
            images = [_chest(random, side) for _ in range(count)]
    else:
        images = list(read(data))
    found, searched = search(images, side, each, seed)
    near = found.others[found.others["kind"] == "near"]
    recall = ", ".join(f"{kind} {share:.0%}" for kind, share in found.recall.items())
    print(f"{len(images)} images, {len(searched.rows) - len(images)} copies added")
    print(f"copies found   {recall}")
    alike = f", alike {near['alike'].min():.2f} to {near['alike'].max():.2f}" if len(near) else ""
    print(
        f"other pairs    {len(found.others) - len(near)} identical, {len(near)} near "
        f"({100 * len(near) / len(images):.2f} in 100 images{alike})"
    )
    print(f"processor      {found.seconds:.2f} s")
    if picture is not None and len(near):
        ordered = near.sort_values("alike")
        shown = ordered.iloc[np.linspace(0, len(near) - 1, min(SHOWN, len(near))).astype(int)]
        pixels = searched.pictures(shown[["first", "second"]].to_numpy().ravel())
        captions = [(f"{value:.2f}", "") for value in shown["alike"]]
        told = f"{len(shown)} of {len(near)} pairs, the least alike first"
        pairs = pixels.reshape(-1, 2, *pixels.shape[1:])
        copies_sheet(pairs, captions, told).savefig(picture)
