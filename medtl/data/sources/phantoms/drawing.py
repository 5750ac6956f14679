"""Shapes, textures and opacities that phantoms are drawn with.

All shapes live in body coordinates: x to the right, y downwards, the image's half width is 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Field = np.ndarray
"""float32 [S, S], a value for each pixel; scalars beside it are plain floats, so it stays that."""


@dataclass(frozen=True)
class Pose:
    """Pose of a body in the image: a turn in radians, a shift in half widths, a scale."""

    turn: float
    shift: tuple[float, float]
    scale: tuple[float, float]

    @classmethod
    def drawn(cls, random: np.random.Generator, turn: float, shift: float, scale: float) -> Pose:
        """Draws a random pose; `turn`, `shift` and `scale` are standard deviations."""
        common = math.exp(random.normal(0, scale))
        stretch = math.exp(random.normal(0, scale / 3))
        return cls(
            turn=random.normal(0, turn),
            shift=(random.normal(0, shift), random.normal(0, shift)),
            scale=(common * stretch, common / stretch),
        )

    def grid(self, size: int) -> tuple[Field, Field]:
        """Returns body coordinates (x, y) of every pixel of a `size` x `size` image."""
        line = ((np.arange(size, dtype=np.float32) + 0.5) / size) * 2 - 1
        x, y = line[None, :] - self.shift[0], line[:, None] - self.shift[1]
        cosine, sine = math.cos(self.turn), math.sin(self.turn)
        return (
            (cosine * x + sine * y) / self.scale[0],
            (cosine * y - sine * x) / self.scale[1],
        )


def soft(distance: Field, edge: float) -> Field:
    """Returns 1 where `distance` < 0, 0 above, with a smooth edge of about `edge` half widths."""
    return 0.5 - 0.5 * np.tanh(distance / edge)


def ellipse(
    x: Field,
    y: Field,
    centre: tuple[float, float],
    radii: tuple[float, float],
    turn: float = 0.0,
) -> Field:
    """Approximates the distance to an ellipse's edge: negative inside, positive outside."""
    cosine, sine = math.cos(turn), math.sin(turn)
    dx, dy = x - centre[0], y - centre[1]
    along = (cosine * dx + sine * dy) / radii[0]
    across = (cosine * dy - sine * dx) / radii[1]
    return (np.sqrt(along * along + across * across) - 1) * min(radii)


def ridge(distance: Field, width: float) -> Field:
    """Draws a line where `distance` crosses 0: 1 on the line, falling off within `width`."""
    scaled = distance * (1 / width)
    return 1 / (1 + scaled * scaled * scaled * scaled)


def smooth_noise(random: np.random.Generator, size: int, cells: int) -> Field:
    """Draws noise of mean 0 and deviation 1 with blobs about `2 / cells` half widths wide.

    A lattice of normal numbers under uniform cubic B-splines, so that the same draw looks alike
    at every image size.
    """
    lattice = random.standard_normal((cells + 3, cells + 3), dtype=np.float32)
    at = (np.arange(size, dtype=np.float32) + 0.5) / size * cells
    first = at.astype(np.intp)
    t = (at - first.astype(np.float32))[:, None]
    weights = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    # Written out, not as matrix products: those round differently with the number of threads.
    tall = _combined(weights, lattice, first)
    field = _combined(weights, np.ascontiguousarray(tall.T), first)
    # 151/315 is the mean square of the spline along each of the two axes.
    return field * (315 / 151)


def _combined(weights: Sequence[Field], lattice: Field, first: np.ndarray) -> Field:
    combined = weights[0] * lattice[first]
    for place, weight in enumerate(weights[1:], start=1):
        combined = combined + weight * lattice[first + place]
    return combined


def somewhere(random: np.random.Generator, x: Field, y: Field, mask: Field) -> tuple[float, float]:
    """Chooses a pixel well inside a mask (0 to 1), uniformly; returns its body coordinates."""
    rows, columns = np.nonzero(mask > 0.9)
    # By a share, not a count, so that the place is the same at every image size.
    chosen = int(random.random() * len(rows))
    return float(x[rows[chosen], columns[chosen]]), float(y[rows[chosen], columns[chosen]])


# Each function returns a field of added attenuation, 0 where there is nothing and about 1 where
# the finding is at its densest.


def nodule(
    random: np.random.Generator, x: Field, y: Field, centre: tuple[float, float], radius: float
) -> Field:
    """Draws a solid opacity with an uneven edge."""
    return soft(_uneven(random, x, y, centre, radius), radius * random.uniform(0.2, 0.45))


def cavity(
    random: np.random.Generator, x: Field, y: Field, centre: tuple[float, float], radius: float
) -> Field:
    """Draws an opacity with a clear middle: a wall of about a third of the radius."""
    distance = _uneven(random, x, y, centre, radius)
    return ridge(distance + 0.25 * radius, 0.28 * radius)


def _uneven(
    random: np.random.Generator, x: Field, y: Field, centre: tuple[float, float], radius: float
) -> Field:
    long = radius * random.uniform(1.0, 1.4)
    distance = ellipse(x, y, centre, (long, radius), random.uniform(0, math.pi))
    return distance + 0.18 * radius * smooth_noise(random, len(x), 12)


def network(random: np.random.Generator, size: int, cells: int = 20) -> Field:
    """Draws a reticular pattern: thin lines where smooth noise passes through zero."""
    return ridge(smooth_noise(random, size, cells), 0.3)


def stripes(random: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    """Draws septal lines: thin, nearly parallel, bent, with gaps."""
    angle = random.uniform(0, math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    bent = along * random.uniform(20, 26) + 0.9 * smooth_noise(random, size, 4)
    broken = soft(-smooth_noise(random, size, 9) - 0.3, 0.5)
    return ridge(np.sin(bent), 0.45) * broken


def dots(random: np.random.Generator, size: int, cells: int = 26) -> Field:
    """Draws a miliary pattern: many small round opacities."""
    return soft(1.1 - smooth_noise(random, size, cells), 0.35)


def haze(random: np.random.Generator, size: int, cells: int = 5) -> Field:
    """Draws ground glass: cloudy patches without lines."""
    return soft(-smooth_noise(random, size, cells), 0.9)
