"""A kept clip as a file of its own: the frame grid, or the original frames of the same span."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stages.base import ClipError
from stages.decode import Decoder
from stages.frames import FrameSpec
from stages.picture import MediaError, View
from stages.recut import box_of, clip_of, read_grid
from stages.staging import Cache

Form = Literal["grid", "original"]
TICKS = 90_000  # per second: the clock of the files written
EDGE_S = 1e-3  # a frame this close to the span's end belongs to it


class Renderer:
    """Renders the clips of one manifest; owns a decoding process. Made once in each worker process."""

    def __init__(self, roots: Mapping[str, str], spec: FrameSpec, form: Form, deadline_s: float, cache: Cache) -> None:
        self._roots = roots
        self._spec = spec
        self._form = form
        self._decoder = Decoder(deadline_s)
        self._cache = cache

    def render(self, row: Mapping[str, Any]) -> tuple[str, bytes]:
        """("mp4" or "png", the file's bytes) of a manifest row. Raises ClipError with what was wrong.

        grid: the frames that the model sees, an image as `count` equal ones, at the grid's rate. original: every frame
        of the span at its own time and size, an image as PNG; upright, and cut to the source index's own box.
        """
        with self._cache.clip(clip_of(row), self._roots[row["source"]]) as path:
            return self._render(row, path)

    def _render(self, row: Mapping[str, Any], location: str) -> tuple[str, bytes]:
        if self._form == "grid":
            frames = read_grid(self._decoder, row, location, self._spec)
            rate = row["grid_fps"] or self._spec.fps
            return "mp4", encode(((i / rate, frame) for i, frame in enumerate(frames)), Fraction(rate))
        try:
            if row["kind"] == "image":
                return "png", _png(location, row)
            return "mp4", encode(_original(location, row), Fraction(row["fps"]))
        except MediaError as error:
            raise ClipError(str(error), error.transient) from error
        except OSError as error:
            raise ClipError(f"cannot be read: {error.strerror or error}") from error

    def close(self) -> None:
        """End the decoding process."""
        self._decoder.close()


def _original(location: str, row: Mapping[str, Any]) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds since the span began, uint8 RGB (h, w, 3)) of every frame from the first grid frame to the last."""
    from stages.video_file import VideoFile

    start, end = row["start_s"], row["start_s"] + row["duration_s"]
    with closing(VideoFile(location)) as file:
        table = file.table((start, end) if file.large else None)
        chosen = np.flatnonzero((table.seconds >= start - EDGE_S) & (table.seconds <= end + EDGE_S)).tolist()
        if not chosen:
            raise MediaError(f"has no frame from {start:.2f} s to {end:.2f} s")
        for position, picture in file.decode(table, chosen):
            upright = np.rot90(picture, -row["rotation"] // 90) if row["rotation"] else picture
            yield float(table.seconds[position] - table.seconds[chosen[0]]), _cut(upright, row)


def _png(location: str, row: Mapping[str, Any]) -> bytes:
    from PIL import Image, ImageOps

    with Image.open(location) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    out = io.BytesIO()
    Image.fromarray(_cut(upright, row)).save(out, "png")
    return out.getvalue()


def _cut(picture: np.ndarray, row: Mapping[str, Any]) -> np.ndarray:
    """The part of an upright picture that the source's index names."""
    height, width = picture.shape[:2]
    view = View.of(width, height, box_of(row), min(width, height))
    x, y = round(view.box[0] * width), round(view.box[1] * height)
    return picture[y : y + view.native[1], x : x + view.native[0]]


def encode(frames: Iterable[tuple[float, np.ndarray]], rate: Fraction) -> bytes:
    """H.264 in MP4 of frames (seconds, uint8 RGB (h, w, 3)); odd sizes lose a row or column. The same frames give the
    same bytes: one thread, and no library's version written into the file."""
    import av

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        with av.open(str(path), "w", format="mp4", options=options) as container:
            stream: Any = None
            for seconds, picture in frames:
                height, width = (side // 2 * 2 for side in picture.shape[:2])
                if stream is None:
                    stream = container.add_stream("libx264", rate=rate.limit_denominator(1001))
                    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                    stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
                    stream.options = {"crf": "18", "preset": "medium"}
                    stream.codec_context.thread_count = 1
                    stream.codec_context.flags |= av.codec.context.Flags.bitexact
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
                frame.pts, frame.time_base = round(seconds * TICKS), Fraction(1, TICKS)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path.read_bytes()
