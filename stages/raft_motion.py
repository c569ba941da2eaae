"""Motion by RAFT, the paper's engine: the same columns from another flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from flows.raft import MIN_SIDE, Raft
from stages import base, weights
from stages.base import ClipError, Measured, Sample
from stages.flow_columns import COLUMNS_VERSION, motion_from_flow, still_motion
from stages.frames import FrameSpec


class RaftParams(base.Params):
    """model: raft_small has a fifth of the parameters. updates: of the flow; 12 is torchvision's number.

    precision: float16 in the convolutions; auto takes it on a GPU and float32 on a CPU. compile: torch.compile.
    max_pairs: frame pairs that go through the model together; bounds the memory.
    """

    operational: ClassVar[frozenset[str]] = frozenset({"max_pairs"})

    model: Literal["raft_large", "raft_small"] = "raft_large"
    updates: int = Field(12, ge=1, le=64)
    precision: Literal["auto", "float32", "float16"] = "auto"
    compile: bool = False
    max_pairs: int = Field(60, ge=1)


class RaftMotion:
    """torchvision's RAFT on the frame grid; all pairs of all clips of a batch go through it together."""

    Params: type[base.Params] = RaftParams

    def __init__(self, params: RaftParams, spec: FrameSpec) -> None:
        if spec.size < MIN_SIDE:
            raise ValueError(f"frames.size: RAFT needs {MIN_SIDE} or more, got {spec.size}")
        self.params = params
        self.spec = spec
        self.raft: Raft | None = None

    def weights(self) -> tuple[str, ...]:
        """The model files that it needs."""
        return (self.params.model,)

    def version(self) -> str:
        """Versions of torch and torchvision, and the hash of the weights."""
        return f"{weights.version(self.weights(), 'torchvision', 'torch')} columns {COLUMNS_VERSION}"

    def setup(self, device: str) -> None:
        """Loads the model."""
        params = self.params
        state = weights.load_state_dict(weights.require(self.weights())[params.model])
        half = params.precision == "float16" or (params.precision == "auto" and device != "cpu")
        self.raft = Raft(state, params.model, device, half, params.compile, params.updates, params.max_pairs)

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """One result per sample, in order; images have no motion by definition."""
        return self.finish(batch, self.infer(batch))

    def infer(self, batch: Sequence[Sample]) -> list[tuple[np.ndarray, np.ndarray] | None]:
        """Flow and frame grid of each sample, None for an image."""
        assert self.raft is not None
        grids = [sample.grid() for sample in batch if sample.clip.kind == "video"]
        found = iter(zip(self.raft.flows(grids), grids, strict=True))
        return [next(found) if sample.clip.kind == "video" else None for sample in batch]

    def finish(
        self, batch: Sequence[Sample], inferred: Sequence[tuple[np.ndarray, np.ndarray] | None]
    ) -> list[Measured | ClipError]:
        """Camera, intensity and what is stored, from the flow, on the CPU: about 0.1 s a clip."""
        return [
            still_motion(self.spec) if found is None else motion_from_flow(*found, sample.columns)
            for sample, found in zip(batch, inferred, strict=True)
        ]
