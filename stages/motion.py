"""Motion: the intensity M, the camera's share, and how the face moves, from optical flow on the frame grid."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Literal

from flows.dis import PRESETS, dis_flow
from manifests.schema import fields
from stages import base
from stages.base import ClipError, Measured, Rule, Sample, Stage
from stages.flow_columns import COLUMNS_VERSION, motion_from_flow, still_motion
from stages.frames import FrameSpec
from stages.raft_motion import RaftMotion


class DisParams(base.Params):
    """preset: portrait errs least; ultrafast takes a sixth of its time and errs most on slow motion (flows/dis.py)."""

    preset: Literal["ultrafast", "fast", "medium", "portrait"] = "portrait"


class Dis:
    """OpenCV's DIS optical flow, on one CPU thread."""

    Params: type[base.Params] = DisParams

    def __init__(self, params: DisParams, spec: FrameSpec) -> None:
        self.settings = PRESETS[params.preset]
        self.spec = spec

    def version(self) -> str:
        """OpenCV's version and all settings."""
        return f"opencv {version('opencv-python-headless')} {self.settings} columns {COLUMNS_VERSION}"

    def setup(self, device: str) -> None:
        """Nothing to load."""

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """One result per sample, in order."""
        return [self._measure(sample) for sample in batch]

    def _measure(self, sample: Sample) -> Measured:
        if sample.clip.kind == "image":
            return still_motion(self.spec)
        images = sample.grid()
        return motion_from_flow(dis_flow(images, self.settings), images, sample.columns)


STAGE = Stage(
    name="motion",
    needs="grid",
    fields=fields("motion_intensity", "camera_motion", "face_motion", "flow_path"),
    engines={"dis": Dis, "raft": RaftMotion},
    reads=("face", "crop"),
    rules=(
        Rule("too_still", "motion_intensity", "<", "min_motion_intensity"),
        Rule("camera_motion", "camera_motion", ">", "max_camera_motion"),
    ),
)
