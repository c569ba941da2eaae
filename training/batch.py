"""One training sample, and samples stacked into a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass
class Entry:
    """Where the cache keeps the VAE's posterior of this video, None where it keeps none; and what it holds there.

    posterior: mean and deviation, float32 (N, 2 C, h, w).
    """

    path: Path | None = None
    posterior: Tensor | None = None


@dataclass
class _Stacked:
    """What a batch stacks: each tensor has the batch in front there. S = config.size, N grid frames, K =
    config.identity_frames.

    video: (N, 3, S, S), -1..1. face: the reference face on plain ground, (3, S, S), -1..1. reference: the frame it was
    cut from, (3, S, S). reference_warp: (2, 3), its pixels to ArcFace's template. id_frames: (K,) frames on which a
    face is known; id_warps: (K, 2, 3). flow: (N - 1, h, h), 0..255.
    """

    video: Tensor
    face: Tensor
    reference: Tensor
    reference_warp: Tensor
    id_frames: Tensor
    id_warps: Tensor
    flow: Tensor


@dataclass
class Sample(_Stacked):
    """One training sample. m: M of Eq. 7 as shown, capped. skipped: clip id and reason of each clip that could not be
    read in its place."""

    clip_id: str
    has_face: bool
    m: float
    caption: str
    action: str
    entry: Entry = field(default_factory=Entry)
    skipped: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Batch(_Stacked):
    """Samples stacked; see Sample. has_face: bool (B,). m: (B,)."""

    clip_id: list[str]
    has_face: Tensor
    m: Tensor
    caption: list[str]
    action: list[str]
    entry: list[Entry]
    skipped: list[tuple[str, str]]

    def take(self, rows: list[int]) -> Batch:
        """These samples of the batch, in this order."""
        picked = {k: v[rows] if isinstance(v, Tensor) else [v[i] for i in rows] for k, v in self._by_sample().items()}
        return Batch(**picked, skipped=self.skipped)

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on `device`."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The batch in memory that a GPU copies from at once; DataLoader calls this."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(**{k: change(v) if isinstance(v, Tensor) else v for k, v in vars(self).items()})

    def _by_sample(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "skipped"}


def collate(samples: list[Sample]) -> Batch:
    """Stack samples into a batch."""
    columns: dict[str, Any] = {}
    for name, first in vars(samples[0]).items():
        values = [getattr(sample, name) for sample in samples]
        if name == "skipped":
            columns[name] = [skip for skips in values for skip in skips]
        elif isinstance(first, Tensor):
            columns[name] = torch.stack(values)
        elif isinstance(first, bool | float):
            columns[name] = torch.tensor(values)
        else:
            columns[name] = values
    return Batch(**columns)
