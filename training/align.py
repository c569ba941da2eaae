"""Differentiable face alignment: the similarity warp that ArcFace was trained behind."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Where ArcFace (insightface) expects eyes, nose and mouth corners in its 112 x 112 input, as x, y pixels.
TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
# A detector's box lands on this square of the 112 x 112 input where there are no landmarks: brow to chin.
BOX_TEMPLATE = (16.0, 26.0, 96.0, 106.0)
SIZE = 112


def similarity(source: Tensor, target: Tensor) -> Tensor:
    """Least-squares similarity (rotation, uniform scale, shift; never a reflection) from `source` to `target` points.

    source, target: (B, P, 2), P >= 2. Returns (B, 2, 3) with target = A [x, y, 1]. Closed form in the plane: with
    centred points as complex numbers, a = sum(conj(s) t) / sum(|s|^2).
    """
    s0, t0 = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    s, t = source - s0, target - t0
    norm = s.square().sum((1, 2)).clamp_min(1e-12)
    re = (s * t).sum((1, 2)) / norm
    im = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(1) / norm
    linear = torch.stack([torch.stack([re, -im], 1), torch.stack([im, re], 1)], 1)  # (B, 2, 2)
    shift = t0[:, 0] - (linear @ s0.transpose(1, 2))[..., 0]
    return torch.cat([linear, shift[..., None]], 2)


def to_template(landmarks: Tensor) -> Tensor:
    """Warp (B, 2, 3) that takes five landmarks (B, 5, 2), pixels, to ArcFace's template."""
    target = torch.tensor(TEMPLATE, dtype=landmarks.dtype, device=landmarks.device)
    return similarity(landmarks, target.expand(len(landmarks), -1, -1))


def box_to_template(boxes: Tensor) -> Tensor:
    """Warp (B, 2, 3) that takes face boxes (B, 4) x0, y0, x1, y1 to `BOX_TEMPLATE`: for detectors without landmarks."""
    x0, y0, x1, y1 = BOX_TEMPLATE
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].unflatten(1, (4, 2))
    target = boxes.new_tensor([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    return similarity(corners, target.expand(len(boxes), -1, -1))


def warp(images: Tensor, matrix: Tensor, size: int = SIZE) -> Tensor:
    """Apply the warp: images (B, C, H, W) and matrix (B, 2, 3), input pixels to template pixels -> (B, C, size, size).

    Bilinear, zeros outside; differentiable in the images. Pixel centres are at whole numbers. With another size than
    112 the template is scaled.
    """
    height, width = images.shape[-2:]
    linear, shift = matrix[:, :, :2].float(), matrix[:, :, 2:].float()
    ticks = (torch.arange(size, device=images.device) + 0.5) * (SIZE / size) - 0.5
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    target = torch.stack([x.flatten(), y.flatten()])  # (2, size * size)
    source = torch.linalg.solve(linear, target - shift)  # (B, 2, size * size), input pixels
    grid = (source * 2 + 1) / source.new_tensor([[width], [height]]) - 1
    grid = grid.transpose(1, 2).unflatten(1, (size, size))
    return functional.grid_sample(images, grid.to(images.dtype), align_corners=False)
