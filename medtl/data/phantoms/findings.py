"""What a phantom may have: opacities and textures that chest and cross-section phantoms share.

Each function returns a field of added attenuation, 0 where there is nothing and about 1 where
the finding is at its densest.
"""

from __future__ import annotations

import math

import numpy as np

from medtl.data.phantoms.shapes import Field, ellipse, ridge, smooth_noise, soft


def nodule(
    random: np.random.Generator, x: Field, y: Field, centre: tuple[float, float], radius: float
) -> Field:
    """One solid opacity with an uneven edge."""
    return soft(_uneven(random, x, y, centre, radius), radius * random.uniform(0.2, 0.45))


def cavity(
    random: np.random.Generator, x: Field, y: Field, centre: tuple[float, float], radius: float
) -> Field:
    """One opacity with a clear middle: a wall of about a third of the radius."""
    distance = _uneven(random, x, y, centre, radius)
    return ridge(distance + 0.25 * radius, 0.28 * radius)


def _uneven(
    random: np.random.Generator, x: Field, y: Field, centre: tuple[float, float], radius: float
) -> Field:
    long = radius * random.uniform(1.0, 1.4)
    distance = ellipse(x, y, centre, (long, radius), random.uniform(0, math.pi))
    return distance + 0.18 * radius * smooth_noise(random, len(x), 12)


def network(random: np.random.Generator, size: int, cells: int = 20) -> Field:
    """Reticular pattern: a net of thin lines, where smooth noise passes through zero."""
    return ridge(smooth_noise(random, size, cells), 0.3)


def stripes(random: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    """Septal lines: thin, nearly parallel, bent and broken off here and there."""
    angle = random.uniform(0, math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    bent = along * random.uniform(20, 26) + 0.9 * smooth_noise(random, size, 4)
    broken = soft(-smooth_noise(random, size, 9) - 0.3, 0.5)
    return ridge(np.sin(bent), 0.45) * broken


def dots(random: np.random.Generator, size: int, cells: int = 26) -> Field:
    """Miliary pattern: many small round opacities."""
    return soft(1.1 - smooth_noise(random, size, cells), 0.35)


def haze(random: np.random.Generator, size: int, cells: int = 5) -> Field:
    """Ground glass: cloudy patches without lines."""
    return soft(-smooth_noise(random, size, cells), 0.9)
