"""Optical flow by RAFT (Teed and Deng 2020, arXiv 2003.12039), torchvision's model.

The forward pass is torchvision's, for consecutive frames: each frame goes through the feature encoder once, not once
for either of its pairs, and only the last of the flow updates is brought to full resolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np

MIN_SIDE = 128  # below it the top of the correlation pyramid has no two values to interpolate between


class Raft:
    """RAFT on a device, loaded from torchvision's state dict.

    half: float16 in the convolutions; correlations, coordinates and the flow itself stay float32.
    compile: torch.compile for the encoders and the update block; the first batch then takes minutes.
    max_pairs: frame pairs in one pass; a pair of 512 x 512 takes about 90 MB for its correlations alone.
    Raises ValueError for a state dict that does not fit the model name for name.
    """

    def __init__(
        self,
        state: Mapping[str, Any],
        name: Literal["raft_large", "raft_small"] = "raft_large",
        device: str = "cpu",
        half: bool = False,
        compile: bool = False,
        updates: int = 12,
        max_pairs: int = 60,
    ) -> None:
        import torch
        from torchvision.models import optical_flow

        model = getattr(optical_flow, name)(weights=None)
        try:
            model.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise ValueError(f"not a state dict of torchvision's {name}: {error}") from error
        self.model = model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
        if compile:
            for part in ("feature_encoder", "context_encoder", "update_block"):
                setattr(self.model, part, torch.compile(getattr(self.model, part)))
        self.device = torch.device(device)
        self.half = half
        self.updates = updates
        self.max_pairs = max_pairs

    def flows(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The flow from each frame to the next.

        clips: uint8 RGB (n, h, w, 3) each, h and w multiples of 8, of at least 128, the same for all; n may differ.
        Returns per clip float32 (n - 1, h, w, 2): x to the right, y down, in pixels.
        """
        import torch

        if not clips:
            return []
        h, w = clips[0].shape[1:3]
        if min(h, w) < MIN_SIDE or h % 8 or w % 8:
            raise ValueError(f"RAFT needs height and width from {MIN_SIDE} in multiples of 8, got {w} x {h}")
        frames = torch.from_numpy(np.concatenate(clips)).to(self.device).permute(0, 3, 1, 2)
        ends = np.cumsum([len(clip) for clip in clips])
        first = np.setdiff1d(np.arange(len(frames)), ends - 1)  # a clip's last frame begins no pair
        chunks = [first[i : i + self.max_pairs] for i in range(0, len(first), self.max_pairs)]
        with torch.inference_mode(), self._precision():
            flow = [self._pairs(frames, chunk).permute(0, 2, 3, 1).float().cpu().numpy() for chunk in chunks]
        sizes = np.cumsum([len(clip) - 1 for clip in clips])[:-1]
        return np.split(np.concatenate(flow) if flow else np.zeros((0, h, w, 2), np.float32), sizes)

    def _precision(self) -> Any:
        import torch

        return torch.autocast(self.device.type, torch.float16) if self.half else nullcontext()

    def _pairs(self, frames: Any, first: np.ndarray) -> Any:
        """Flow (b, 2, h, w) from the frames with these indices to those that follow them."""
        import torch
        from torchvision.models.optical_flow._utils import make_coords_grid, upsample_flow

        model = self.model
        used = np.union1d(first, first + 1)
        images = frames[used].float() / 127.5 - 1  # -1..1, as in torchvision's transform for its weights
        images = images.contiguous(memory_format=torch.channels_last)
        features = model.feature_encoder(images).float()
        one, two = np.searchsorted(used, first), np.searchsorted(used, first + 1)
        model.corr_block.build_pyramid(features[one], features[two])

        hidden_size = model.update_block.hidden_state_size
        context = model.context_encoder(images[one])
        hidden, context = context.split([hidden_size, context.shape[1] - hidden_size], dim=1)
        hidden, context = torch.tanh(hidden), torch.relu(context)

        start = make_coords_grid(len(one), *features.shape[-2:]).to(self.device)
        end = start.clone()
        for _ in range(self.updates):
            corr = model.corr_block.index_pyramid(centroids_coords=end)
            hidden, delta = model.update_block(hidden, context, corr, end - start)
            end = end + delta.float()
        mask = None if model.mask_predictor is None else model.mask_predictor(hidden).float()
        return upsample_flow(end - start, mask)
