"""Head phantoms: drawings that look like two MR images of one slice, weighted by T1 and by T2.

Each case has one lesion, brighter or darker than the tissue around it, on each of the two images.
The classes are what it holds, as in patients the pair of signals tells: fat is bright on both,
fluid on T2 alone, blood of some days on T1 alone, fibrous tissue on neither. On either image alone
every class looks like one other.
"""

from __future__ import annotations

import math

import numpy as np

from medtl.data.sources.phantoms import drawing
from medtl.data.sources.phantoms.drawing import (
    Field,
    Pose,
    ellipse,
    ridge,
    smooth_noise,
    soft,
    somewhere,
)

CLASSES = ("blood", "fat", "fibrous", "fluid")
MODALITIES = ("t1", "t2")

_BRIGHT = (("blood", "fat"), ("fat", "fluid"))  # lesions that are, on each of the two

# Signal of scalp fat, skull, brain and fluid; those of a lesion lie above or below the brain's.
_T1 = (0.6, 0.05, 0.5, 0.2)
_T2 = (0.45, 0.05, 0.4, 0.75)


def draw(random: np.random.Generator, label: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws T1 and T2 images of a slice with a lesion of `CLASSES`: uint8 [size, size] each."""
    pose = Pose.drawn(random, turn=0.3, shift=0.06, scale=0.08)
    x, y = pose.grid(size)
    width, height = random.uniform(0.58, 0.76), random.uniform(0.74, 0.88)
    outline = ellipse(x, y, (0, 0), (width, height))
    scalp, skull = random.uniform(0.04, 0.1), random.uniform(0.04, 0.08)
    parts = (soft(outline, 0.02), soft(outline + scalp, 0.015), soft(outline + scalp + skull, 0.02))
    fluid = parts[2] * np.maximum(_ventricles(random, x, y), _furrows(random, x, y, outline))
    inside = soft(outline + 0.35, 0.02) * (1 - fluid)
    centre = somewhere(random, x, y, inside)
    lesion = drawing.nodule(random, x, y, centre, random.uniform(0.16, 0.24)) * parts[2]
    t1, t2 = (
        _shown(random, _weighted(signals, parts, fluid), lesion, label in bright)
        for signals, bright in zip((_T1, _T2), _BRIGHT, strict=True)
    )
    return t1, t2


def _weighted(signals: tuple[float, ...], parts: tuple[Field, ...], fluid: Field) -> Field:
    """Composes the signal of scalp, skull and brain with its fluid."""
    fat, bone, brain, water = signals
    scalp, skull, inner = parts
    return fat * scalp + (bone - fat) * skull + (brain - bone) * inner + (water - brain) * fluid


def _shown(random: np.random.Generator, tissue: Field, lesion: Field, bright: bool) -> np.ndarray:
    """Draws the image with its lesion, in the uneven field of a coil, with noise."""
    size = len(tissue)
    contrast = random.uniform(0.35, 0.5) * (1 if bright else -1)
    signal = tissue * (1 + 0.14 * smooth_noise(random, size, 24)) + contrast * lesion
    uneven = 1 + 0.1 * smooth_noise(random, size, 2)
    grain = random.uniform(0.01, 0.04) * random.standard_normal((size, size), np.float32)
    gamma = math.exp(random.normal(0, 0.1))
    return (255 * np.clip((signal * uneven + grain) / 1.1, 0, 1) ** gamma).astype(np.uint8)


def _ventricles(random: np.random.Generator, x: Field, y: Field) -> Field:
    """Draws two slanted pools of fluid beside the midline."""
    long, wide, slant = random.uniform(0.2, 0.3), random.uniform(0.04, 0.08), 0.25
    pools = [
        soft(ellipse(x, y, (side * 0.12, -0.02), (wide, long), -side * slant), 0.02)
        for side in (-1, 1)
    ]
    return np.maximum(*pools)


def _furrows(random: np.random.Generator, x: Field, y: Field, outline: Field) -> Field:
    """Draws fluid between the folds of the brain's surface, and in the cleft of its halves."""
    folds = ridge(smooth_noise(random, len(outline), 18), 0.25) * soft(-outline - 0.3, 0.05)
    cleft = ridge(x + 0.0 * y, 0.02) * soft(-np.abs(y) + 0.35, 0.05)
    return 0.7 * np.maximum(folds, cleft)
