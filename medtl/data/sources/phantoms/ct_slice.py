"""Cross-section phantoms: drawings that look like axial CT slices, in seven classes of finding.

The embedded pretraining source: another view of another body with other labels than the chest
phantoms, but with shapes and textures that a network can carry over.
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

CLASSES = ("cavity", "dots", "haze", "network", "nodule", "none", "stripes")


def draw(random: np.random.Generator, finding: str, size: int) -> np.ndarray:
    """Draws a slice with a finding of `CLASSES`: uint8 [size, size]."""
    pose = Pose.drawn(random, turn=0.25, shift=0.05, scale=0.08)
    x, y = pose.grid(size)
    width, height = random.uniform(0.82, 0.94), random.uniform(0.62, 0.76)
    outline = ellipse(x, y, (0, 0), (width, height))
    lungs = _lungs(random, x, y, height) * soft(outline + 0.2, 0.02)
    density = 0.55 * soft(outline, 0.015) + 0.3 * soft(outline + random.uniform(0.06, 0.14), 0.02)
    density = density + _bones(random, x, y, width, height)
    density = density + 0.12 * soft(ellipse(x, y, (0.08, -0.1), (0.22, 0.28), 0.4), 0.02)
    air = random.uniform(0.6, 0.75)
    vessels = _vessels(random, x, y)
    opacity = _opacity(random, finding, x, y, lungs)
    return _shown(random, density - lungs * (air - vessels - opacity))


def _lungs(random: np.random.Generator, x: Field, y: Field, height: float) -> Field:
    """Draws the share of lung in each pixel, 0 to 1, on both sides of heart and spine."""
    lungs = np.zeros_like(x + y)
    for side in (-1, 1):
        radii = (random.uniform(0.27, 0.33), height * random.uniform(0.68, 0.78))
        shape = ellipse(x, y, (side * 0.43, -0.02), radii, turn=side * random.uniform(-0.2, 0.1))
        lungs = np.maximum(lungs, soft(shape + 0.02 * smooth_noise(random, len(x), 6), 0.02))
    heart = ellipse(x, y, (0.1, -0.14), (0.26, 0.3), 0.4)
    return lungs * soft(-heart, 0.03)


def _bones(random: np.random.Generator, x: Field, y: Field, width: float, height: float) -> Field:
    """Draws the vertebra with its canal, the breastbone, and ribs as a ring of short bars."""
    vertebra = soft(ellipse(x, y, (0, height - 0.27), (0.13, 0.11)), 0.02)
    canal = soft(ellipse(x, y, (0, height - 0.13), (0.055, 0.045)), 0.02)
    arch = ridge(ellipse(x, y, (0, height - 0.13), (0.1, 0.08)), 0.04)
    breastbone = soft(ellipse(x, y, (0, 0.13 - height), (0.12, 0.04)), 0.02)
    ring = ridge(ellipse(x, y, (0, 0), (width - 0.13, height - 0.12)), 0.035)
    around = np.arctan2(y / height, x / width)
    bars = soft(-np.sin(around * int(random.integers(9, 13)) + random.uniform(0, 6)), 0.4)
    return 0.5 * (vertebra + arch + breastbone + 0.8 * ring * bars) - 0.2 * canal


def _vessels(random: np.random.Generator, x: Field, y: Field) -> Field:
    """Vessels cut across and along: few bright spots, denser towards the middle."""
    spots = soft(1.7 - smooth_noise(random, len(x), 18), 0.3)
    return random.uniform(0.1, 0.3) * spots * np.exp(-np.abs(x))


def _opacity(
    random: np.random.Generator, finding: str, x: Field, y: Field, lungs: Field
) -> Field | float:
    """Draws the attenuation that the finding adds to the lungs."""
    size = len(x)
    strength = random.uniform(0.5, 0.85)
    if finding in ("nodule", "cavity"):
        centre = somewhere(random, x, y, lungs)
        shape = drawing.nodule if finding == "nodule" else drawing.cavity
        return strength * shape(random, x, y, centre, random.uniform(0.1, 0.18))
    if finding == "none":
        return 0.0
    texture = {
        "network": lambda: drawing.network(random, size),
        "dots": lambda: drawing.dots(random, size),
        "stripes": lambda: drawing.stripes(random, size, x, y),
        "haze": lambda: drawing.haze(random, size),
    }[finding]()
    return strength * texture * (0.25 + 0.75 * drawing.haze(random, size, 3))


def _shown(random: np.random.Generator, density: Field) -> np.ndarray:
    """Shows the slice in a random display window, with the streaks of reconstruction."""
    size = len(density)
    grain, streaks = random.uniform(0.01, 0.04), 0.03
    low, wide = random.uniform(-0.25, -0.05), random.uniform(1.1, 1.6)
    gamma = math.exp(random.normal(0, 0.2))
    density = density + streaks * smooth_noise(random, size, 5)
    density = density + grain * random.standard_normal((size, size), np.float32)
    shown = np.clip((density - low) / wide, 0, 1)
    return (255 * shown**gamma).astype(np.uint8)
