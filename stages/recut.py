"""The clip that a row of a manifest describes, read from its file again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.base import ClipError
from stages.clip import Clip
from stages.decode import Box, Decoder
from stages.frames import FrameSpec


def clip_of(row: Mapping[str, Any]) -> Clip:
    """The row's clip, as `stages.staging.Cache.clip` takes it."""
    return Clip(row["source"], row["path"], row["kind"], "", folder_fps=row.get("folder_fps"))


def box_of(row: Mapping[str, Any]) -> Box | None:
    """The source index's crop box of the row, as fractions x0, y0, x1, y1 of the picture, or None."""
    box = row.get("source_box")
    return None if box is None else (box[0], box[1], box[2], box[3])


def read_grid(
    decoder: Decoder, row: Mapping[str, Any], location: str, spec: FrameSpec, per_step: int = 1
) -> np.ndarray:
    """The frames that the row was measured on, through its crop: uint8 RGB (n, S, S, 3), n = per_step (N - 1) + 1.

    `per_step` = 2 adds the frames halfway between. `spec`: the `frames` of the manifest's metadata. Raises ClipError.
    """
    kind = row["kind"]
    header = decoder.header(location, kind, row.get("folder_fps"))
    span = None
    count = per_step * (spec.count - 1) + 1
    if kind == "video":
        assert header.fps is not None
        # One frame more than the grid's length, so that rounding leaves no grid frame outside.
        span = (row["start_s"], row["start_s"] + row["duration_s"] + 1 / header.fps)
        rate = per_step / spec.step_s(header.fps)
        spec = FrameSpec(fps=rate, stride=None, count=count, size=spec.size, window="first")
    else:
        spec = spec.model_copy(update={"count": count})
    box, crop = box_of(row), row["crop"]
    if box is None and abs((crop[2] - crop[0]) - min(header.width, header.height)) > 1:
        raise ClipError("its crop lies in a part of the picture that the manifest does not name (source_box)")
    return decoder.frames(location, kind, spec, header, span, box).through(crop)
