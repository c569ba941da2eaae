"""The configuration of a run, as pydantic models; `curation.config_file` reads it from sources.yaml."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stages.base import Stage
from stages.frames import FrameSpec
from stages.table import STAGES


class Strict(BaseModel):
    """Refuses keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FolderSource(Strict):
    """Videos and images under a folder, recursively."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    kind: Literal["folder"]
    root: str = Field(min_length=1)
    licence: str | None = Field(None, min_length=1, max_length=200)  # for the cards of exports


class Resample(Strict):
    """Balancing over motion intensity (A.5): bins over 0..max_intensity, and how often one clip may repeat."""

    bins: int = Field(20, ge=1, le=1000)
    max_intensity: float = Field(20.0, gt=0)
    max_repeat: float = Field(4.0, ge=1)
    image_share: float | None = Field(None, ge=0, lt=1)
    by: Literal["motion_intensity", "camera_motion"] = "motion_intensity"
    seed: int = Field(0, ge=0)


class Split(Strict):
    """Share of source files whose clips are held out for validation."""

    val_fraction: float = Field(0.02, ge=0, lt=1)


class GroupConfig(Strict):
    """Stages that run in the same actors, and what one such actor takes."""

    stages: list[str] = Field(min_length=1)
    cpus: float = Field(1.0, gt=0)
    gpus: float = Field(0.0, ge=0)
    workers: int | None = Field(None, ge=1)
    batch: int = Field(1, ge=1)


class Execution(Strict):
    """How the work is run. None of it changes what is measured."""

    groups: list[GroupConfig] | None = None
    workers: int | None = Field(None, ge=1)
    deadline_s: float = Field(60.0, gt=0)
    clip_deadline_s: float = Field(600.0, gt=0)
    max_failed_fraction: float = Field(0.05, ge=0, le=1)
    max_in_flight_gib: float = Field(2.0, gt=0)
    start_timeout_s: float = Field(120.0, gt=0)


class Chosen(Strict):
    """The engine chosen for a stage, and its parameters."""

    stage: str
    engine: str
    params: dict[str, Any]


class Config(Strict):
    """A validated configuration: paths absolute, engines and thresholds complete."""

    output: str
    profile: str
    sources: tuple[FolderSource, ...]
    stages: tuple[Chosen, ...]
    thresholds: dict[str, float]
    frames: FrameSpec
    resample: Resample
    split: Split
    execution: Execution

    def limits(self) -> dict[str, float | None]:
        """The thresholds as JSON can hold them: None for one that is infinite, and so rejects nothing."""
        return {name: value if math.isfinite(value) else None for name, value in self.thresholds.items()}

    def stage_table(self) -> list[tuple[Stage, Chosen]]:
        """The stages in order, each with the engine chosen for it."""
        by_name = {stage.name: stage for stage in STAGES}
        return [(by_name[chosen.stage].for_engine(chosen.engine), chosen) for chosen in self.stages]
