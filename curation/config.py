"""The configuration of a run, as pydantic models; `curation.config_file` reads it from sources.yaml."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from stages.base import Rule, Stage
from stages.frames import FrameSpec
from stages.shots import STAGE as SHOTS
from stages.staging import Cache, default_folder
from stages.table import STAGES

# Applied to the clips that all stages let pass; see curation/duplicates.py.
DUPLICATE = Rule("duplicate", "duplicate_similarity", ">", "max_duplicate_similarity")


class Strict(BaseModel):
    """Refuses keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _below(path: str) -> str:
    if path.startswith("/") or "://" in path or not path or {".", ".."} & set(path.split("/")):
        raise ValueError("expected a path below the source's root")
    return path


Below = Annotated[str, AfterValidator(_below)]


class Windows(Strict):
    """How the videos of a source are cut into clips; without it each video, or entry of an index, is one clip.

    policy: inside each shot take the first window, the sharpest (best), or all of them; or of each video its longest
    shot alone; or windows every `stride_s`, wherever the cuts are. length_s: of a window; by default what the frame
    grid spans. threshold: PySceneDetect's adaptive threshold for a cut. deadline_s: for finding the shots of one video.
    """

    policy: Literal["first", "best", "all", "longest_shot", "stride"]
    length_s: float | None = Field(None, gt=0)
    stride_s: float | None = Field(None, gt=0)
    threshold: float = Field(3.0, gt=0)
    deadline_s: float = Field(3600.0, gt=0)


class _Source(Strict):
    """What all sources have. The name is part of every clip's identity."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    root: str = Field(min_length=1)
    licence: str | None = Field(None, min_length=1, max_length=200)  # for the cards of exports
    windows: Windows | None = None


class FolderSource(_Source):
    """Videos and images under a folder, recursively: `curation.sources.folder`."""

    kind: Literal["folder"]

    def parts(self) -> list[str]:
        """What must stand below the root."""
        return []


class _Indexed(_Source):
    """A source with an index. raw: the files are whole videos, and the index's times and boxes are applied to them.

    clips: folder of the cut clips ("processed"), or of the whole videos ("raw").
    """

    raw: bool = False
    clips: Below | None = None

    @property
    def folder(self) -> str:
        """Where the video files lie, below the root."""
        return self.clips or ("raw" if self.raw else "processed")


class CelebvHqSource(_Indexed):
    """CelebV-HQ: `curation.sources.celebv`."""

    kind: Literal["celebv_hq"]
    annotations: Below = "celebvhq_info.json"

    def parts(self) -> list[str]:
        """What must stand below the root."""
        return [self.annotations, self.folder]


class CelebvTextSource(_Indexed):
    """CelebV-Text: `curation.sources.celebv`. texts: folder of its descriptions, or null."""

    kind: Literal["celebv_text"]
    annotations: Below = "celebvtext_info.json"
    texts: Below | None = None

    def parts(self) -> list[str]:
        """What must stand below the root."""
        return [self.annotations, self.folder, *([self.texts] if self.texts else [])]


class VfhqSource(_Indexed):
    """VFHQ: `curation.sources.vfhq`."""

    kind: Literal["vfhq"]
    meta: Below = "meta_info"

    def parts(self) -> list[str]:
        """What must stand below the root."""
        return [self.meta, self.folder]


class AahqSource(_Source):
    """AAHQ: `curation.sources.aahq`."""

    kind: Literal["aahq"]
    annotations: Below = "AAHQ-dataset.json"
    images: Below = "aligned"

    def parts(self) -> list[str]:
        """What must stand below the root."""
        return [self.annotations, self.images]


Source = Annotated[
    FolderSource | CelebvHqSource | CelebvTextSource | VfhqSource | AahqSource, Field(discriminator="kind")
]
SOURCES: dict[str, type[BaseModel]] = {
    "folder": FolderSource,
    "celebv_hq": CelebvHqSource,
    "celebv_text": CelebvTextSource,
    "vfhq": VfhqSource,
    "aahq": AahqSource,
}


class Resample(Strict):
    """Balancing over motion intensity (A.5): bins over 0..max_intensity, and how often one clip may repeat."""

    bins: int = Field(20, ge=1, le=1000)
    max_intensity: float = Field(20.0, gt=0)
    max_repeat: float = Field(4.0, ge=1)
    image_share: float | None = Field(None, ge=0, lt=1)
    by: Literal["motion_intensity", "camera_motion"] = "motion_intensity"
    seed: int = Field(0, ge=0)


class Split(Strict):
    """Share of videos whose clips are held out for validation; see curation/split.py."""

    val_fraction: float = Field(0.02, ge=0, lt=1)


Count = Annotated[int, Field(ge=0)]  # of clips that a source may give at most


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
    start_timeout_s: float = Field(120.0, gt=0)  # for a pool's first worker to find its place


class Storage(Strict):
    """Where what lies at URIs is copied to before it is read: a folder on each node, shared by its workers.

    cache: the folder; by default one of the user's in the system's temporary folder. cache_gib: what videos and images
    may take there; the least recently used ones go first.
    """

    cache: str | None = Field(None, min_length=1)
    cache_gib: float = Field(20.0, gt=0)

    def folder(self) -> Path:
        """The folder, on the machine that asks."""
        return Path(self.cache) if self.cache else default_folder()

    def opened(self) -> Cache:
        """The cache, on the machine that asks."""
        return Cache(self.folder(), int(self.cache_gib * 2**30))


class Chosen(Strict):
    """The engine chosen for a stage, and its parameters."""

    stage: str
    engine: str
    params: dict[str, Any]


class Config(Strict):
    """A validated configuration: paths absolute, engines and thresholds complete."""

    output: str
    profile: str
    sources: tuple[Source, ...]
    stages: tuple[Chosen, ...]
    thresholds: dict[str, float]
    frames: FrameSpec
    resample: Resample
    split: Split
    mix: dict[str, Count] = Field(default_factory=dict)
    execution: Execution
    storage: Storage = Storage()

    def limits(self) -> dict[str, float | None]:
        """The thresholds as JSON can hold them: None for one that is infinite, and so rejects nothing."""
        return {name: value if math.isfinite(value) else None for name, value in self.thresholds.items()}

    def stage_table(self) -> list[tuple[Stage, Chosen]]:
        """The stages in order, each with the engine chosen for it."""
        by_name = {stage.name: stage for stage in (*STAGES, SHOTS)}
        return [(by_name[chosen.stage].for_engine(chosen.engine), chosen) for chosen in self.stages]
