"""DOVER, video quality from a technical and an aesthetic view (Wu et al., ICCV 2023, arXiv 2211.04894).

The views and the fusion are those of the project's evaluate_one_video.py and dover.yml (VQAssessment/DOVER).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stages import weights
from training.metrics.base import Score, Video

if TYPE_CHECKING:
    import torch

CLIP, CLIPS, STEP = 32, 3, 2  # technical view: frames a clip, clips, frames from one to the next
FRAMES = 32  # aesthetic view
GRID, PATCH, SIDE = 7, 32, 224  # a technical frame is a mosaic of GRID x GRID patches of PATCH px: SIDE
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SEED = 0  # DOVER draws places at random; here the same for every video of a size and length


class DoverScore:
    """Overall quality, 0..1."""

    name = "dover"
    title = "Dover Score"
    definition = (
        "DOVER's fused overall score, 0..1. Technical view: 3 clips of 32 frames, every second one, each a mosaic of "
        "7 x 7 patches of 32 px cut out at native resolution; aesthetic view: 32 frames scaled to 224 x 224 without "
        "antialiasing. Random places come from a fixed seed. A video of fewer frames than a view asks for is read "
        "again from its start; one of fewer than 32 shows the aesthetic view its first frame alone, as DOVER does. A "
        "side below 224 px is scaled up first. t = (technical - 0.1107) / 0.07355, a = (aesthetic + 0.08285) / "
        "0.03774, score = sigmoid(0.6104 t + 0.3896 a). Model: DOVER (Swin-T and ConvNeXt-T, trained on LSVQ)"
    )
    weights: tuple[str, ...] = ("dover",)
    packages: tuple[str, ...] = ("torch",)

    def setup(self, device: str) -> None:
        """Loads DOVER."""
        (path,) = weights.require(self.weights).values()
        self.model = load_dover(weights.load_state_dict(path)).to(device)
        self.device = device

    def measure(self, video: Video) -> Score:
        """details: raw technical and aesthetic quality."""
        import torch

        with torch.inference_mode():
            raw = self.model(technical_view(video.frames).to(self.device), aesthetic_view(video.frames).to(self.device))
        return fused(*raw)


def load_dover(state: Mapping[str, Any]) -> Any:
    """The network in eval mode. Raises ValueError when the state dict is not of its form."""
    from training.metrics.dover_networks import Dover

    model = Dover()
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"not a state dict of DOVER: {error}") from error
    return model.eval().requires_grad_(False)


def fused(technical: float, aesthetic: float) -> Score:
    """The overall score from both raw qualities, which are normalised by their distribution on LSVQ."""
    t, a = (technical - 0.1107) / 0.07355, (aesthetic + 0.08285) / 0.03774
    value = 1 / (1 + math.exp(-(0.6104 * t + 0.3896 * a)))
    return Score(value, {"technical": technical, "aesthetic": aesthetic})


def frame_indices(count: int, parts: int, length: int, random: np.random.Generator) -> np.ndarray:
    """`length` frames, every STEP-th, at a random place of each of `parts` equal parts of a video of `count` frames."""
    part = count // parts
    room = part - length * STEP
    starts = part * np.arange(parts) + (random.integers(0, room, parts) if room > 0 else 0)
    return (starts[:, None] + STEP * np.arange(length)).ravel() % count


def technical_view(frames: np.ndarray) -> torch.Tensor:
    """uint8 (N, h, w, 3) -> float32 (CLIPS, 3, CLIP, SIDE, SIDE)."""
    random = np.random.default_rng(SEED)
    indices = frame_indices(len(frames), CLIPS, CLIP, random).reshape(CLIPS, CLIP)
    frames = enlarged(frames)
    height, width = frames.shape[1:3]
    view = np.empty((CLIPS, CLIP, SIDE, SIDE, 3), np.uint8)
    cell = height // GRID, width // GRID
    room = tuple(max(1, side - PATCH) for side in cell)
    for clip, i, j in np.ndindex(CLIPS, GRID, GRID):
        y = min(cell[0] * i, height - PATCH) + random.integers(room[0])
        x = min(cell[1] * j, width - PATCH) + random.integers(room[1])
        patch = frames[indices[clip], y : y + PATCH, x : x + PATCH]
        view[clip, :, i * PATCH : (i + 1) * PATCH, j * PATCH : (j + 1) * PATCH] = patch
    return normalised(view)


def aesthetic_view(frames: np.ndarray) -> torch.Tensor:
    """uint8 (N, h, w, 3) -> float32 (1, 3, FRAMES, SIDE, SIDE)."""
    indices = frame_indices(len(frames), FRAMES, 1, np.random.default_rng(SEED))
    return normalised(resized(frames[indices], SIDE, SIDE)[None])


def enlarged(frames: np.ndarray) -> np.ndarray:
    """Frames whose shorter side is at least SIDE, less a pixel by rounding; values are cut off to whole numbers.

    Both as DOVER does it.
    """
    import torch
    from torch.nn import functional

    height, width = frames.shape[1:3]
    if min(height, width) >= SIDE:
        return frames
    scale = 1 / (min(height, width) / SIDE)
    x = torch.from_numpy(frames.copy()).permute(0, 3, 1, 2) / 255
    x = functional.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
    return (x * 255).byte().permute(0, 2, 3, 1).numpy()


def resized(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 (N, h, w, 3) -> uint8 (N, height, width, 3), bilinear without antialiasing."""
    import torch
    from torch.nn import functional

    x = torch.from_numpy(frames.copy()).permute(0, 3, 1, 2).float()
    x = functional.interpolate(x, (height, width), mode="bilinear", align_corners=False)
    return x.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def normalised(view: np.ndarray) -> torch.Tensor:
    """uint8 (clips, T, h, w, 3) -> (clips, 3, T, h, w)."""
    import torch

    x = (torch.from_numpy(view).float() - torch.tensor(MEAN)) / torch.tensor(STD)
    return x.permute(0, 4, 1, 2, 3)
