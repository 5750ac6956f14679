"""Synthetic fundus photographs: distinct eyes within a common camera frame.

All images share a bright disc on black. Vessels, optic disc, macula, colour, exposure and spots
are drawn at random for each image.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SCALE = 2  # supersampling of vessels, for smooth edges
STEP = 0.03  # length of a vessel segment, as a share of the radius


def draw_eye(random: np.random.Generator, size: int, cameras: int = 1) -> Image.Image:
    """Draws one eye, RGB, size x size pixels.

    Args:
        random: generator of the eye's features and of its camera.
        size: side in pixels.
        cameras: number of camera frames, up to 3: a whole disc, a disc cut at top and bottom, and
            a smaller disc.
    """
    camera = int(random.integers(cameras))
    side = size * SCALE
    radius = side * (0.48, 0.56, 0.44)[camera]
    y, x = np.mgrid[:side, :side].astype(np.float32)
    x, y = (x - side / 2 + 0.5) / radius, (y - side / 2 + 0.5) / radius
    eye = -1 if random.random() < 0.5 else 1
    disc = (eye * random.uniform(0.35, 0.6), random.uniform(-0.12, 0.12))
    macula = (disc[0] - eye * random.uniform(0.55, 0.7), disc[1] + random.uniform(0.0, 0.12))
    light = 1 - random.uniform(0.1, 0.35) * ((x - random.normal(0, 0.25)) ** 2 + y * y)
    light -= random.uniform(0.1, 0.35) * _spot(x, y, macula, random.uniform(0.12, 0.25))
    light += random.uniform(0.3, 0.6) * _spot(x, y, disc, random.uniform(0.08, 0.13))
    for _ in range(int(random.integers(0, 12))):
        place = tuple(random.uniform(-0.7, 0.7, 2))
        light += random.normal(0, 0.25) * _spot(x, y, place, random.uniform(0.01, 0.05))
    tint = np.array([0.8, 0.4, 0.2]) * random.uniform(0.75, 1.15) + random.normal(0, 0.02, 3)
    pixels = 255 * light[..., None] * tint * (1 - 0.3 * _vessels(random, side, radius, disc, eye))
    pixels += random.normal(0, 2, (side, side, 1))
    edge = np.clip((1 - np.hypot(x, y)) * radius / SCALE + 0.5, 0, 1)
    if camera == 1:
        edge *= np.abs(y) < 0.75
    shown = Image.fromarray((pixels.clip(0, 255) * edge[..., None]).astype(np.uint8))
    return shown.resize((size, size), Image.Resampling.BOX)


def _spot(x: np.ndarray, y: np.ndarray, place: tuple[float, float], width: float) -> np.ndarray:
    return np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * width**2))


def _vessels(
    random: np.random.Generator, side: int, radius: float, disc: tuple[float, float], eye: int
) -> np.ndarray:
    """Draws the vessels as a darkness of each pixel, 0 to 1: [side, side, 1].

    Four branching arcades leave the disc, up and down, towards the macula and away from it.
    """
    canvas = Image.new("L", (side, side))
    pen = ImageDraw.Draw(canvas)
    toward = math.pi if eye > 0 else 0.0
    growing = []
    for up in (-1, 1):
        for course, bend in ((0.9, -1.2), (2.2, 0.5)):
            for width in (0.028, 0.02):
                turn = random.normal(course, 0.2)
                angle = toward + up * turn * (1 if eye > 0 else -1)
                curve = up * (1 if eye > 0 else -1) * random.normal(bend, 0.3)
                growing.append((*disc, angle, curve, width * random.uniform(0.8, 1.2)))
    while growing:
        x, y, angle, curve, width = growing.pop()
        places = [(x, y)]
        while width > 0.004 and math.hypot(x, y) < 1:
            angle += STEP * curve + random.normal(0, 0.09)
            x, y = x + STEP * math.cos(angle), y + STEP * math.sin(angle)
            places.append((x, y))
            width *= 0.985
            if random.random() < 0.07:
                fork = random.choice((-1, 1)) * random.uniform(0.4, 0.9)
                growing.append((x, y, angle + fork, random.normal(0, 0.6), 0.65 * width))
                width *= 0.9
        line = [(side / 2 + radius * a, side / 2 + radius * b) for a, b in places]
        pen.line(line, fill=255, width=max(1, round(width * radius)), joint="curve")
    soft = canvas.filter(ImageFilter.GaussianBlur(side / 400))
    return np.asarray(soft, np.float32)[..., None] / 255
