"""Stage "shots": where the cuts of a whole video are, measured before its windows are listed as clips.

`stages.decode.Decoder.shots` measures it, through `stages.shot_detection`; its engine only names what it depends on.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from pydantic import Field

from manifests.schema import fields
from stages import base
from stages.base import ClipError, Measured, Sample, Stage
from stages.frames import FrameSpec
from stages.header import LIBRARIES
from stages.shot_detection import SETTINGS


class ShotParams(base.Params):
    """threshold: how many times its neighbours' mean a change must be to be a cut. detect: else only the length is
    read."""

    threshold: float = Field(3.0, gt=0)
    detect: bool = True


class Adaptive:
    """PySceneDetect's AdaptiveDetector on every frame, scaled down."""

    Params: type[base.Params] = ShotParams

    def __init__(self, params: ShotParams, spec: FrameSpec) -> None:
        pass

    def version(self) -> str:
        """Versions of PySceneDetect and of what decodes, and the settings."""
        names = ("scenedetect-headless", *LIBRARIES)
        return " ".join([*(f"{name} {version(name)}" for name in names), SETTINGS])

    def setup(self, device: str) -> None:
        """Nothing to load."""

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """Not used: whoever holds the Decoder calls its `shots`."""
        raise NotImplementedError("the runner measures this stage through stages.decode.Decoder")


STAGE = Stage(
    name="shots",
    needs="file",
    fields=fields("fps", "file_duration_s", "cuts", "sharpness"),
    engines={"adaptive": Adaptive},
)
