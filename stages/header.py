"""Stages "header" (resolution, duration, codec) and "decode" (which decoder, which grid).

`stages.decode.Decoder` measures them; their engine only names what the numbers depend on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from manifests.schema import fields
from stages import base
from stages.base import ClipError, Measured, Rule, Sample, Stage
from stages.clip import Clip
from stages.decode import Box, Grid, Header, Span
from stages.frames import Frames, FrameSpec

LIBRARIES = ("av", "decord", "pillow", "opencv-python-headless")


class Decoding:
    """Engine of both stages: the container's header and the frames, read by `stages.decode.Decoder`."""

    Params = base.Params

    def __init__(self, params: base.Params, spec: FrameSpec) -> None:
        pass

    def version(self) -> str:
        """Versions of the libraries that decode and scale."""
        return " ".join(f"{name} {version(name)}" for name in LIBRARIES)

    def setup(self, device: str) -> None:
        """Nothing to load."""

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """Not used: whoever holds the Decoder calls `header_columns` and `decode_columns`."""
        raise NotImplementedError("the runner measures this stage through stages.decode.Decoder")


def header_columns(header: Header, spec: FrameSpec, span: Span | None, box: Box | None = None) -> dict[str, Any]:
    """Columns of the stage "header". With a `box`, `short_side` is the box's. Raises ClipError for a span outside."""
    sides = (header.width, header.height)
    if box is not None:
        sides = round((box[2] - box[0]) * header.width), round((box[3] - box[1]) * header.height)
    columns: dict[str, Any] = {
        "start_s": 0.0,
        "duration_s": None,
        "file_duration_s": None,
        "fps": header.fps,
        "width": header.width,
        "height": header.height,
        "short_side": min(sides),
        "frame_count": header.frame_count,
        "missing_frames": 0,
        "codec": header.codec,
        "rotation": header.rotation,
    }
    if header.kind == "video":
        grid = Grid.of(header, spec, span)
        columns |= {
            "start_s": grid.start_s,
            "duration_s": grid.length_s,
            "file_duration_s": grid.span[1] - grid.span[0],
            "missing_frames": grid.missing,
        }
    return columns


def header_of(clip: Clip, known: Mapping[str, Any]) -> Header:
    """The header again, from the columns it was stored as."""
    duration = known["file_duration_s"]  # of the span: the file goes at least to its end
    if duration is not None and clip.span is not None:
        duration += max(0.0, clip.span[0])
    return Header(
        kind=clip.kind,
        width=known["width"],
        height=known["height"],
        fps=known["fps"],
        duration_s=duration,
        frame_count=known["frame_count"],
        codec=known["codec"],
        rotation=known["rotation"],
        folder=clip.folder_fps is not None,
    )


def decode_columns(frames: Frames, spec: FrameSpec, header: Header) -> dict[str, Any]:
    """Columns of the stage "decode". `grid_fps` is the rate of the grid: of a stride, its share of the file's rate."""
    rate = spec.fps if spec.stride is None or header.fps is None else header.fps / spec.stride
    return {
        "decoder": frames.decoder,
        "grid_fps": rate,
        "grid_frames": spec.count,
        "grid_size": spec.size,
    }


HEADER = Stage(
    name="header",
    needs="header",
    fields=fields(
        "start_s",
        "duration_s",
        "file_duration_s",
        "fps",
        "width",
        "height",
        "short_side",
        "frame_count",
        "missing_frames",
        "codec",
        "rotation",
    ),
    engines={"container": Decoding},
    rules=(
        Rule("resolution", "short_side", "<", "min_side"),
        Rule("too_short", "file_duration_s", "<", "min_duration_s"),
        Rule("too_short", "missing_frames", ">", 0.0),
    ),
)

DECODE = Stage(
    name="decode",
    needs="frames",
    fields=fields("decoder", "grid_fps", "grid_frames", "grid_size"),
    engines={"decord": Decoding},
)
