"""What is counted over many steps: losses between two entries of the log, and clips that could not be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor

from training.batch import Batch
from training.data import DataError
from training.framework import Losses


@dataclass
class Running:
    """Means of the losses over the passes since the last `means`; L_id over the samples for which it was computed."""

    sums: Tensor | None = None
    passes: int = 0

    def add(self, losses: Losses) -> None:
        """Count one pass; nothing waits for the device."""
        row = torch.stack([losses.total, losses.l_r, losses.l_id * losses.active, losses.active]).detach().float()
        self.sums = row if self.sums is None else self.sums + row
        self.passes += 1

    def finite(self) -> bool:
        """Whether all losses were."""
        return self.sums is not None and bool(torch.isfinite(self.sums).all())

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """{"total", "l_r", "l_id", "active"} over all processes, each of which has to call this; then starts anew.

        active: share of samples for which L_id was computed. l_id is absent where there were none.
        """
        assert self.sums is not None
        total, l_r, l_id, active = (accelerator.reduce(self.sums, "mean") / self.passes).tolist()
        self.sums, self.passes = None, 0
        found = {"total": total, "l_r": l_r, "active": active}
        return found | {"l_id": l_id / active} if active else found


@dataclass
class Skips:
    """Clips that could not be read, by id; `draws` counts all."""

    limit: float
    draws: int = 0
    failed: int = 0
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, batch: Batch, echo: Callable[[str], None]) -> None:
        """Count a batch and say each failing clip once. Raises DataError when too many of the draws failed."""
        self.draws += len(batch.clip_id) + len(batch.skipped)
        self.failed += len(batch.skipped)
        for clip_id, reason in batch.skipped:
            if clip_id not in self.reasons:
                self.reasons[clip_id] = reason
                echo(f"skipped {clip_id}: {reason}")
        if self.draws >= 20 and self.failed > self.limit * self.draws:
            raise DataError(
                f"{self.failed} of {self.draws} draws could not be read, more than max_unreadable={self.limit} allows"
            )
