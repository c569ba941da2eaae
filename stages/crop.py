"""Stage "crop": the square of the frames that motion, captions and the trainer see."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import Any

import numpy as np
from pydantic import Field

from manifests.schema import fields
from stages import base
from stages.base import ClipError, Measured, Rule, Sample, Stage
from stages.frames import FrameSpec
from stages.picture import View


def place(length: int, size: int, low: float, high: float) -> int:
    """Start of a window of `size` in 0..`length`, as near the middle as holding `low`..`high` allows.

    What does not fit is centred in it. All in pixels.
    """
    middle = (length - size) // 2
    held = min(max(middle, ceil(high - size)), floor(low))
    start = held if high - low <= size else round((low + high - size) / 2)
    return min(max(start, 0), length - size)


class SquareParams(base.Params):
    """margin: room to leave around the face boxes, as a share of their width and height."""

    margin: float = Field(0.25, ge=0, le=2)


class Square:
    """The centre square, and with `crop: face` moved only as far as needed to hold the face on every looked-at frame.

    `crop` counts in pixels of the picture that the frames were scaled from: the displayed one, or the part of it that
    the source's index cuts out. `face_boxes` are cut at the square's edge: an empty box is a face outside it.
    """

    Params: type[base.Params] = SquareParams

    def __init__(self, params: SquareParams, spec: FrameSpec) -> None:
        self.params = params
        self.spec = spec

    def version(self) -> str:
        """No library takes part."""
        return "1"

    def setup(self, device: str) -> None:
        """Nothing to load."""

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """crop, face_in_crop, face_boxes and face_landmarks of each sample; the last three null without a face."""
        return [self._one(sample) for sample in batch]

    def _one(self, sample: Sample) -> Measured:
        known = sample.columns
        view = View.of(known["width"], known["height"], sample.clip.box, self.spec.size)
        boxes = np.array(known["frame_boxes"] or [], np.float64).reshape(-1, 4)
        x, y = self._corner(view, boxes)
        columns: dict[str, Any] = {
            "crop": native_square(view, x, y),
            "face_in_crop": None,
            "face_boxes": None,
            "face_landmarks": None,
        }
        if len(boxes):
            inside = np.clip(boxes - [x, y, x, y], 0, self.spec.size)
            columns["face_in_crop"] = float((_areas(inside) / _areas(boxes)).min())
            columns["face_boxes"] = inside.tolist()
        if known["frame_landmarks"] is not None:
            columns["face_landmarks"] = (np.array(known["frame_landmarks"], np.float64) - [x, y] * 5).tolist()
        return Measured(columns)

    def _corner(self, view: View, boxes: np.ndarray) -> tuple[int, int]:
        """Upper left corner of the square in frame pixels, for face boxes (n, 4) in frame pixels."""
        width, height = view.target
        size = self.spec.size
        if self.spec.crop == "center" or not len(boxes):
            return (width - size) // 2, (height - size) // 2
        room = self.params.margin * (boxes[:, 2:] - boxes[:, :2])
        low = np.maximum((boxes[:, :2] - room).min(axis=0), 0)
        high = np.minimum((boxes[:, 2:] + room).max(axis=0), view.target)
        return place(width, size, low[0], high[0]), place(height, size, low[1], high[1])


def native_square(view: View, x: int, y: int) -> list[float]:
    """The square whose corner is frame pixel (x, y), in native pixels: x0, y0, x1, y1.

    It is as wide as the native shorter side and lies inside the picture; `Frames.through` finds (x, y) again by
    rounding, although the frames' longer side is itself rounded.
    """
    side = min(view.native)
    scale = min(view.target) / side
    left = min(x / scale, view.native[0] - side)
    top = min(y / scale, view.native[1] - side)
    assert (round(left * scale), round(top * scale)) == (x, y)
    return [float(left), float(top), float(left + side), float(top + side)]


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


STAGE = Stage(
    name="crop",
    needs="columns",
    fields=fields("crop", "face_in_crop", "face_boxes", "face_landmarks"),
    engines={"square": Square},
    reads=("header", "face"),
    rules=(Rule("face_out_of_frame", "face_in_crop", "<", "min_face_in_crop"),),
)
