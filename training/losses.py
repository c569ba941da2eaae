"""The losses of the MotionCharacter paper, each a small pure function."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def region_weight(magnitude: Tensor, frames: int, size: tuple[int, int]) -> Tensor:
    """Eq. 9: w = clip(f / 255 + 0.5, 1, 1.5) on the latent grid.

    magnitude: stored foreground flow (B, frames - 1, H, W), 0..255. size: (h, w) of the latents; the maps are averaged
    down to it. The N - 1 maps serve N frames, the last one twice. Returns (B, frames, h, w) in 1..1.5.
    """
    assert magnitude.shape[1] == frames - 1
    f = functional.adaptive_avg_pool2d(magnitude.float(), size)
    f = torch.cat([f, f[:, -1:]], 1)
    return (f / 255 + 0.5).clamp(1.0, 1.5)


def region_loss(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Eq. 10, L_R: mean over frames and pixels of weight x squared error. Without weight, the plain diffusion loss.

    prediction, target: (B, C, N, h, w). weight: (B, N, h, w). Returns one value a sample, (B,).
    """
    error = (prediction.float() - target.float()).square()
    if weight is not None:
        error = error * weight[:, None]
    return error.flatten(1).mean(1)


def identity_loss(e_reference: Tensor, e_generated: Tensor) -> Tensor:
    """Eq. 4, L_id = 1 - cos(phi(I), phi(D(z0))): (B, d) and (B, K, d) for K decoded frames -> (B,), 0..2."""
    return 1.0 - functional.cosine_similarity(e_reference[:, None], e_generated, dim=-1).mean(1)


def total_loss(l_r: Tensor, l_id: Tensor, beta: float) -> Tensor:
    """Eq. 11: L = L_R + beta L_id."""
    return l_r + beta * l_id


def predicted_z0(prediction: Tensor, z_t: Tensor, alpha_bar: Tensor, prediction_type: str) -> Tensor:
    """The estimate of z0 that a prediction at step t implies.

    prediction, z_t: (B, C, N, h, w). alpha_bar: cumulative product of the schedule at each sample's t, (B,).
    prediction_type: "epsilon" or "v_prediction". With epsilon the error grows as sqrt((1 - a) / a) with the noise.
    """
    a = alpha_bar.view(-1, 1, 1, 1, 1)
    if prediction_type == "epsilon":
        return (z_t - (1 - a).sqrt() * prediction) / a.sqrt()
    assert prediction_type == "v_prediction"
    return a.sqrt() * z_t - (1 - a).sqrt() * prediction
