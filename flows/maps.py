"""The flow stored beside a clip for the region-aware loss, and the loss's weights made from it (Eq. 9)."""

from __future__ import annotations

import numpy as np

from flows.intensity import foreground

LATENT_STRIDE = 8  # grid pixels per pixel of the latent grid


def stored_maps(magnitudes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The foreground's magnitude on the latent grid, and its maxima.

    magnitudes: float32 (N-1, h, w), px, h and w multiples of 8. Returns uint8 (N-1, h/8, w/8): per pair the magnitude
    over the foreground of Eq. 6, 0 elsewhere, as a share of the pair's maximum in 255ths, area-averaged; and that
    maximum, float32 (N-1,), px. Without motion both are 0.
    """
    pairs, height, width = magnitudes.shape
    assert height % LATENT_STRIDE == 0
    assert width % LATENT_STRIDE == 0
    maxima = magnitudes.max(axis=(1, 2)).astype(np.float32)
    moving = np.where(foreground(magnitudes), magnitudes, 0)
    cells = moving.reshape(pairs, height // LATENT_STRIDE, LATENT_STRIDE, width // LATENT_STRIDE, LATENT_STRIDE)
    means = cells.mean(axis=(2, 4), dtype=np.float64)
    scale = np.divide(255, maxima, out=np.zeros(pairs), where=maxima > 0)
    return np.rint(means * scale[:, None, None]).astype(np.uint8), maxima


def loss_weights(maps: np.ndarray | None, frames: int, latent_size: int) -> np.ndarray:
    """Eq. 9: clip(f/255 + 0.5, 1, 1.5), float32 (frames, latent_size, latent_size).

    maps: uint8 (frames-1, latent_size, latent_size), or None where there is no flow: then 1. N-1 maps serve N frames:
    the last is repeated. Raises ValueError for maps of another shape.
    """
    if maps is None:
        return np.ones((frames, latent_size, latent_size), np.float32)
    if maps.shape != (frames - 1, latent_size, latent_size):
        raise ValueError(
            f"stored flow has the shape {maps.shape}, but {frames} frames on a latent grid of {latent_size} "
            f"need {(frames - 1, latent_size, latent_size)}"
        )
    weights = np.clip(maps.astype(np.float32) / 255 + 0.5, 1, 1.5)
    return np.concatenate([weights, weights[-1:]])
