"""One training sample, and samples stacked into a batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Sample:
    """One training sample. S = config.size, N grid frames, K = config.identity_frames.

    video: (N, 3, S, S), -1..1. face: the reference face on plain ground, (3, S, S), -1..1. reference: the frame it was
    cut from, (3, S, S). reference_warp: (2, 3), its pixels to ArcFace's template. id_frames: (K,) frames on which a
    face is known; id_warps: (K, 2, 3). m: M of Eq. 7 as shown, capped. flow: (N - 1, h, h), 0..255. skipped: clip id
    and reason of each clip that could not be read in its place.
    """

    clip_id: str
    video: Tensor
    face: Tensor
    reference: Tensor
    reference_warp: Tensor
    id_frames: Tensor
    id_warps: Tensor
    has_face: bool
    m: float
    caption: str
    action: str
    flow: Tensor
    skipped: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Batch:
    """Samples stacked; see Sample."""

    clip_id: list[str]
    video: Tensor
    face: Tensor
    reference: Tensor
    reference_warp: Tensor
    id_frames: Tensor
    id_warps: Tensor
    has_face: Tensor
    m: Tensor
    caption: list[str]
    action: list[str]
    flow: Tensor
    skipped: list[tuple[str, str]]

    def take(self, rows: list[int]) -> Batch:
        """These samples of the batch, in this order."""
        picked = {}
        for name, value in vars(self).items():
            if name == "skipped":
                picked[name] = value
            else:
                picked[name] = value[rows] if isinstance(value, Tensor) else [value[i] for i in rows]
        return Batch(**picked)

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on `device`."""
        moved = {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in vars(self).items()}
        return Batch(**moved)


def collate(samples: list[Sample]) -> Batch:
    """Stack samples into a batch."""
    columns: dict[str, Any] = {}
    for name in Batch.__dataclass_fields__:
        values = [getattr(sample, name) for sample in samples]
        if name == "skipped":
            columns[name] = [skip for skips in values for skip in skips]
        elif isinstance(values[0], str):
            columns[name] = values
        elif isinstance(values[0], Tensor):
            columns[name] = torch.stack(values)
        else:
            columns[name] = torch.tensor(values)
    return Batch(**columns)
