"""Chest phantoms: drawings that look like frontal chest radiographs, with findings or without.

They are drawings, not radiographs: they teach and test the machinery, and say nothing about
patients. Opacities are faint against what varies anyway (pose, exposure, ribs, vessels, noise),
so that no single pixel tells the class.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from dataclasses import dataclass

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

CLASSES = ("clear", "diffuse", "focal")
FINDINGS = ("diffuse", "focal", "large heart")
ENLARGED = 1.45  # how much wider a large heart is than that of the patient's anatomy


@dataclass(frozen=True)
class Anatomy:
    """Anatomy of one patient, common to all images; lengths in half widths of the image."""

    lung_width: float
    lung_height: float
    diaphragm: float
    heart_width: float
    rib_gap: float
    rib_density: float
    vessels: float
    fat: float

    @classmethod
    def drawn(cls, random: np.random.Generator) -> Anatomy:
        """Draws a random patient."""
        return cls(
            lung_width=random.uniform(0.29, 0.36),
            lung_height=random.uniform(0.66, 0.78),
            diaphragm=random.uniform(0.38, 0.54),
            heart_width=random.uniform(0.22, 0.36),
            rib_gap=random.uniform(0.155, 0.205),
            rib_density=random.uniform(0.08, 0.18),
            vessels=random.uniform(0.08, 0.2),
            fat=random.uniform(-0.15, 0.2),
        )


def draw(
    random: np.random.Generator, anatomy: Anatomy, findings: Collection[str], size: int
) -> np.ndarray:
    """Draws an image of a patient with some of `FINDINGS`, or none: uint8 [size, size]."""
    if "large heart" in findings:
        anatomy = dataclasses.replace(anatomy, heart_width=ENLARGED * anatomy.heart_width)
    pose = Pose.drawn(random, turn=0.09, shift=0.06, scale=0.09)
    x, y = pose.grid(size)
    lungs = _lungs(random, anatomy, x, y)
    opacity = _opacity(random, findings, x, y, lungs)
    depth = _trunk(anatomy, x, y) + _bones(random, anatomy, x, y) + _heart(anatomy, x, y)
    air = random.uniform(0.75, 1.0)
    vessels = anatomy.vessels * _vessels(random, x, y)
    depth = depth - lungs * (air - vessels - opacity)
    return _exposed(random, depth + _devices(random, x, y))


def _lungs(random: np.random.Generator, anatomy: Anatomy, x: Field, y: Field) -> Field:
    """Draws the share of lung in each pixel, 0 to 1; breathing moves the diaphragm."""
    breath = random.normal(0, 0.05)
    lungs = np.zeros_like(x + y)
    for side in (-1, 1):
        centre = side * (0.09 + anatomy.lung_width)
        radii = (anatomy.lung_width, anatomy.lung_height)
        outline = ellipse(x, y, (centre, 0.1), radii, turn=side * -0.10)
        base = anatomy.diaphragm + breath + (0.05 if side > 0 else 0.0)
        dome = y - base - 1.1 * (x - centre * 0.9) ** 2
        lungs = np.maximum(lungs, soft(outline, 0.035) * soft(dome, 0.025))
    return lungs


def _trunk(anatomy: Anatomy, x: Field, y: Field) -> Field:
    """Draws soft tissue: torso, shoulders and neck, thicker towards the waist; air around it."""
    side = np.abs(x)
    torso = soft(ellipse(x, y, (0, 0.9), (0.93 + 0.2 * anatomy.fat, 2.1)), 0.03)
    arms = soft(ellipse(x, y, (0, -0.12), (1.2, 0.42)), 0.05)
    slope = soft(y + 0.72 - 0.4 * side * side, 0.04) * soft(0.27 - side, 0.06)
    thickness = 1.2 + anatomy.fat + 0.22 * y
    windpipe = ridge(x, 0.055) * soft(y + 0.22, 0.05)
    return np.maximum(torso, 0.9 * arms) * (1 - slope) * (thickness - 0.25 * windpipe)


def _bones(random: np.random.Generator, anatomy: Anatomy, x: Field, y: Field) -> Field:
    """Draws the spine, posterior and anterior ribs and clavicles."""
    gap, side = anatomy.rib_gap, np.abs(x)
    chest = soft(ellipse(x, y, (0, 0.12), (0.82, 0.88)), 0.04) * soft(y - 0.62, 0.15)
    start = random.uniform(0, anatomy.rib_gap)
    posterior = _bands(y - start - 0.75 * side * side + 0.16 * side, gap, 0.27)
    anterior = _bands(y - start + 0.55 * side, gap * 1.1, 0.22)
    ribs = chest * soft(0.1 - side, 0.03) * posterior
    ribs = ribs + 0.55 * chest * soft(0.38 - side, 0.08) * anterior
    vertebrae = 0.8 + 0.2 * np.cos(y * (2 * math.pi / anatomy.rib_gap))
    spine = soft(side - 0.085, 0.025) * vertebrae
    clavicles = ridge(y + 0.6 + 0.22 * side, 0.045)
    clavicles = clavicles * soft(0.06 - side, 0.03) * soft(side - 0.6, 0.05)
    return anatomy.rib_density * (ribs + clavicles) + 0.3 * spine


def _bands(height: Field, gap: float, width: float) -> Field:
    """Draws ribs: bands `gap` apart that fill `width` of it, with the bright edges of bone."""
    phase = np.abs(height / gap - np.round(height / gap))
    return soft(phase - width, 0.05) * (0.7 + 0.6 * phase / width)


def _heart(anatomy: Anatomy, x: Field, y: Field) -> Field:
    """Draws the heart, to the right in the image, and the great vessels above it."""
    width = anatomy.heart_width
    heart = soft(ellipse(x, y, (0.10, 0.22), (width, 0.27), turn=0.5), 0.03)
    vessels = soft(ellipse(x, y, (0.02, -0.25), (0.13, 0.42)), 0.03)
    return 0.62 * np.maximum(heart, 0.7 * vessels)


def _vessels(random: np.random.Generator, x: Field, y: Field) -> Field:
    """Vessels that branch out of the two hila and thin out towards the edge of the lung."""
    bend = smooth_noise(random, len(x), 6)
    total = 0.3 * bend
    for side in (-1, 1):
        dx, dy = x - side * 0.2, y - 0.02
        far = np.sqrt(dx * dx + dy * dy)
        turns = int(random.integers(5, 8))
        around = np.arctan2(dy, dx * side) * turns + random.uniform(0, math.pi) + 0.9 * bend
        branch = ridge(np.sin(around) * far / turns, 0.014) * np.exp(-far / 0.33)
        total = total + branch * soft(-side * x, 0.02)
    return total


def _opacity(
    random: np.random.Generator, findings: Collection[str], x: Field, y: Field, lungs: Field
) -> Field | float:
    """Draws the attenuation that the findings add to the lung."""
    opacity: Field | float = 0.0
    if "focal" in findings:
        opacity = opacity + _focal(random, x, y, lungs)
    if "diffuse" in findings:
        opacity = opacity + _diffuse(random, x, y)
    return opacity


def _focal(random: np.random.Generator, x: Field, y: Field, lungs: Field) -> Field:
    """Draws one nodule, or sometimes a cavity, in the lungs."""
    centre = somewhere(random, x, y, lungs)
    radius = random.uniform(0.11, 0.19)
    shape = drawing.nodule if random.random() < 0.75 else drawing.cavity
    return random.uniform(0.55, 0.85) * shape(random, x, y, centre, radius)


def _diffuse(random: np.random.Generator, x: Field, y: Field) -> Field:
    """Draws a net, dots or stripes of uneven density over the lungs, under a thin cloud."""
    size = len(x)
    pattern = random.integers(3)
    if pattern == 0:
        texture = drawing.network(random, size)
    elif pattern == 1:
        texture = drawing.dots(random, size)
    else:
        texture = drawing.stripes(random, size, x, y)
    where = 0.25 + 0.75 * drawing.haze(random, size, 3)
    cloud = random.uniform(0.0, 0.25) * drawing.haze(random, size)
    return where * (random.uniform(0.45, 0.7) * texture + cloud)


def _devices(random: np.random.Generator, x: Field, y: Field) -> Field | float:
    """Draws a tube or wire across the chest in some images, whatever the finding."""
    if random.random() > 0.25:
        return 0.0
    a, b, c = random.normal(0, 0.35, 3).tolist()
    bent = x - a - b * y - c * y * y
    return 0.35 * ridge(bent, 0.014) * soft(y - random.uniform(-0.2, 0.7), 0.02)


def _exposed(random: np.random.Generator, depth: Field) -> np.ndarray:
    """Converts attenuation to a radiograph: scatter, exposure, display window, quantum noise."""
    size = len(depth)
    scatter, quanta = random.uniform(0.02, 0.08), random.uniform(0.01, 0.035)
    centre, width = random.uniform(0.65, 1.0), random.uniform(0.6, 1.0)
    gain, gamma = random.uniform(0.75, 1.0), math.exp(random.normal(0, 0.2))
    depth = depth + scatter * smooth_noise(random, size, 3)
    noise = random.standard_normal((size, size), dtype=np.float32)
    depth = depth + quanta * np.exp(0.5 * depth) * noise
    shown = soft(centre - depth, width)
    return (255 * gain * shown**gamma).astype(np.uint8)
