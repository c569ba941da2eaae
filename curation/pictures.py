"""Pictures of clips for people to look at: their frames, decoded again, with what was found on them drawn in."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from curation.config import Config
from curation.store import clip_of
from stages.base import ClipError
from stages.decode import Decoder
from stages.frames import Frames, FrameSpec
from stages.header import header_of

FACE = (255, 176, 0)
CROP = (255, 255, 255)


class Pictures:
    """Decodes clips again, in a child process with a deadline. `close` ends it."""

    def __init__(self, config: Config) -> None:
        self._spec = config.frames
        self._roots = {source.name: source.root for source in config.sources}
        self._cache = config.storage.opened()
        self._decoder = Decoder(min(config.execution.deadline_s, 20.0))

    def __enter__(self) -> Pictures:
        return self

    def __exit__(self, *_: object) -> None:
        self._decoder.close()

    def frames(self, row: Mapping[str, Any], size: int) -> Frames:
        """The clip's frames with a shorter side of `size` px; of a clip too short for the grid, two from its middle.

        row: a whole row of `Measurements`. Raises ClipError for a clip that has no header or cannot be decoded now.
        """
        if not row["header_known"]:
            raise ClipError("its header was never read")
        clip = clip_of(dict(row))
        spec = self._spec.model_copy(update={"size": size})
        if row["missing_frames"]:
            spec = FrameSpec(size=size, fps=240, count=2)
        with self._cache.clip(clip, self._roots[clip.source]) as path:
            return self._decoder.frames(path, clip.kind, spec, header_of(clip, row), clip.span, clip.box)


def crop_of(row: Mapping[str, Any], frames: Frames) -> list[float]:
    """The crop in native pixels, the centre square where none was measured."""
    if row["crop"] is not None:
        return list(row["crop"])
    width, height = frames.native
    side = min(width, height)
    x, y = (width - side) / 2, (height - side) / 2
    return [x, y, x + side, y + side]


def spread(count: int, shown: int) -> list[int]:
    """Indices of at most `shown` frames spread evenly over `count`, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(shown, count))})


def marked(row: Mapping[str, Any], frames: Frames, index: int) -> np.ndarray:
    """One whole frame, uint8 RGB (h, w, 3), with the crop and the face that were found on it drawn in."""
    import cv2

    image = frames.images[index].copy()
    scale = frames.images.shape[1:3]
    width = max(1, min(scale) // 100)
    if row["crop"] is not None and scale[0] != scale[1]:
        x0, y0, x1, y1 = (round(value * frames.scale) for value in row["crop"])
        cv2.rectangle(image, (x0, y0), (x1 - 1, y1 - 1), CROP, width)
    boxes = dict(zip(row["face_frames"] or [], row["frame_boxes"] or [], strict=True))
    if index in boxes and row["grid_size"]:
        x0, y0, x1, y1 = (round(value * min(scale) / row["grid_size"]) for value in boxes[index])
        cv2.rectangle(image, (x0, y0), (x1, y1), FACE, width + 1)
    return image


def side_by_side(images: Iterable[np.ndarray], gap: int = 2) -> np.ndarray:
    """Pictures of one height in a row, uint8 RGB (h, w, 3), `gap` px of white between them."""
    parts: list[np.ndarray] = []
    for image in images:
        if parts:
            parts.append(np.full((image.shape[0], gap, 3), 255, np.uint8))
        parts.append(image)
    return np.concatenate(parts, axis=1)


def data_uri(image: np.ndarray) -> str:
    """A uint8 RGB picture as a data URI, WebP."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, "WEBP", quality=75)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()


def contact_strip(row: Mapping[str, Any], frames: Frames, shown: int = 4) -> np.ndarray:
    """`shown` frames of a clip through its crop, in a row."""
    grid = frames.through(crop_of(row, frames))
    return side_by_side(grid[i] for i in _distinct(row, len(grid), shown))


def evidence(row: Mapping[str, Any], frames: Frames, index: int | None, shown: int = 4) -> np.ndarray:
    """The frame `index` that shows why a clip was rejected, or where no single one does, some spread over the clip."""
    count = len(frames.images)
    chosen: Sequence[int] = _distinct(row, count, shown) if index is None or index >= count else [index]
    return side_by_side(marked(row, frames, i) for i in chosen)


def grid_flow(grid: np.ndarray) -> tuple[np.ndarray, float]:
    """The flow between the frames of a grid by DIS, float32 (n-1, h, w, 2), px, and the length that colours show in
    full: 99 % of it is no longer, and it is 1 px at least, so that noise on a still picture stays pale."""
    from flows.dis import PRESETS, dis_flow
    from flows.intensity import magnitude

    flow = dis_flow(grid, PRESETS["portrait"])
    return flow, max(1.0, float(np.quantile(magnitude(flow), 0.99)))


def _distinct(row: Mapping[str, Any], count: int, shown: int) -> list[int]:
    """All frames of an image are one, and those of a clip too short for the grid lie next to each other."""
    return [0] if row["kind"] == "image" or row["missing_frames"] else spread(count, shown)
