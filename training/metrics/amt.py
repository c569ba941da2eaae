"""The frame between two frames, by AMT-S in the layout of its published file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from training.metrics.amt_network import AmtS

MULTIPLE = 16  # sides of the picture
MIN_SIDE = 128  # below it the coarsest correlations are one value, with nothing to interpolate between


class Interpolator:
    """The frame halfway between two frames."""

    def __init__(self, state: Mapping[str, Any], device: str = "cpu") -> None:
        """state: the file's content. Raises ValueError when it is no amt-s.pth."""
        model = AmtS()
        try:
            model.load_state_dict(state.get("state_dict", state), strict=True)
        except RuntimeError as error:
            raise ValueError(f"not a state dict of AMT-S: {error}") from error
        self.model = model.eval().requires_grad_(False).to(device)
        self.device = device

    @torch.inference_mode()
    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """uint8 RGB (h, w, 3), twice -> uint8 RGB (h, w, 3)."""
        height, width = first.shape[:2]
        tall, wide = (max(MIN_SIDE, -(-side // MULTIPLE) * MULTIPLE) for side in (height, width))
        top, left = (tall - height) // 2, (wide - width) // 2
        margins = (left, wide - width - left, top, tall - height - top)
        pictures = torch.from_numpy(np.stack([first, second])).to(self.device).permute(0, 3, 1, 2).float() / 255
        a, b = functional.pad(pictures, margins, mode="replicate").split(1)
        made = self.model(a, b)[0, :, top : top + height, left : left + width]
        return (made * 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()  # cut off, not rounded, as VBench does
