"""How alike two images are: a perceptual hash to find pairs, a closer look to be sure of them."""

from __future__ import annotations

import numpy as np

from medtl.data.report.looks import THUMBNAIL, mean_over_areas

HASHED = 32  # pixels of the side of what is hashed
BITS = 64
COARSE = 16  # frequencies of each axis that the closer look leaves out
REACH = 2  # pixels by which a tile may be shifted
TILES = 4  # along each axis
TILE = (THUMBNAIL - 2 * REACH) // TILES  # pixels of the side of a tile


def perceptual_hashes(thumbnails: np.ndarray) -> np.ndarray:
    """64 bits an image that recompressing, resizing and brightening hardly change: bool [N, 64].

    The hash pHash (Zauner 2010, "Implementation and benchmarking of perceptual image hash
    functions", Hagenberg): the 8 x 8 lowest frequencies but the constant of the cosine transform
    of 32 x 32 pixels, each above the median of all or not. A mirrored or turned image has another.

    Args:
        thumbnails: [N, 64, 64].
    """
    shrink = mean_over_areas(THUMBNAIL, HASHED)
    transform = _cosines(HASHED)[1:9] @ shrink
    waves = (transform @ thumbnails.astype(np.float32) @ transform.T).reshape(-1, BITS)
    return waves > np.median(waves, axis=1, keepdims=True)


def likeness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How well the details of pairs of thumbnails agree, at most 1: float32 [P].

    All radiographs of a chest have the same coarse picture, so it is taken away (the 16 lowest
    frequencies of each axis). Of what is left, each of 4 x 4 tiles is correlated with the place in
    the other image where it fits best, up to 2 of 64 pixels away: a copy may be cut a little
    differently. The mean over tiles counts each by its contrast.

    Args:
        a: [P, 64, 64].
        b: [P, 64, 64].
    """
    tiles = _tiles(_details(a), 1)[:, :, 0]
    windows = _tiles(_details(b), 2 * REACH + 1)
    products = np.matmul(windows, tiles[..., None])[..., 0]
    contrast = np.einsum("ptsv,ptsv->pts", windows, windows)
    contrast *= np.einsum("ptv,ptv->pt", tiles, tiles)[..., None]
    contrast = np.sqrt(contrast)
    agreement = products / np.maximum(contrast, 1e-9)
    best = agreement.argmax(axis=2)[..., None]
    agreement = np.take_along_axis(agreement, best, axis=2)[..., 0]
    weight = np.take_along_axis(contrast, best, axis=2)[..., 0]
    return (agreement * weight).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-9)


def _details(thumbnails: np.ndarray) -> np.ndarray:
    whole = thumbnails.astype(np.float32)
    waves = _cosines(THUMBNAIL)[:COARSE]
    coarse = waves.T @ waves
    return whole - coarse @ whole @ coarse


def _tiles(images: np.ndarray, shifts: int) -> np.ndarray:
    """[P, 16, shifts * shifts, 225]: each tile, at each of its shifts around the middle one."""
    edge = REACH - shifts // 2
    inner = images[:, edge : THUMBNAIL - edge, edge : THUMBNAIL - edge]
    down, across = inner.strides[1:]
    shape = (len(images), TILES, TILES, shifts, shifts, TILE, TILE)
    strides = (inner.strides[0], TILE * down, TILE * across, down, across, down, across)
    view = np.lib.stride_tricks.as_strided(inner, shape, strides, writeable=False)
    return view.reshape(len(images), TILES**2, shifts**2, TILE**2)


def _cosines(side: int) -> np.ndarray:
    """The orthonormal cosine transform (DCT-II) as a matrix, float32 [side, side]."""
    order, place = np.arange(side)[:, None], np.arange(side)
    waves = np.cos(np.pi * order * (2 * place + 1) / (2 * side)) * np.sqrt(2 / side)
    waves[0] /= np.sqrt(2)
    return waves.astype(np.float32)
