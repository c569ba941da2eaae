"""Small real video files for tests, in all codecs and containers, whose frames carry their own number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS, ROWS = 5, 2  # cells of the pattern: bits of the number, most significant first
TICK = Fraction(1, 90000)


def numbered(number: int, width: int, height: int) -> np.ndarray:
    """uint8 RGB (height, width, 3): `number` (0..1023) as a pattern of light and dark cells. It reads right only
    upright, whole and unmirrored."""
    bits = [(number >> (COLUMNS * ROWS - 1 - i)) & 1 for i in range(COLUMNS * ROWS)]
    cells = np.array(bits, np.uint8).reshape(ROWS, COLUMNS) * 150 + 50
    rows = np.arange(height) * ROWS // height
    columns = np.arange(width) * COLUMNS // width
    return np.repeat(cells[rows][:, columns][..., None], 3, axis=2)


def number_of(picture: np.ndarray) -> int:
    """The number that a decoded picture of `numbered` carries, at any size."""
    height, width = picture.shape[:2]
    number = 0
    for row in range(ROWS):
        for column in range(COLUMNS):
            y, x = round((row + 0.5) * height / ROWS), round((column + 0.5) * width / COLUMNS)
            level = picture[y - 2 : y + 3, x - 2 : x + 3].mean()
            assert abs(level - 125) > 30, f"cell ({row}, {column}) is neither light nor dark: {level:.0f}"
            number = number * 2 + int(level > 125)
    return number


def write_video(
    path: Path,
    frames: int = 150,
    size: tuple[int, int] = (160, 96),
    fps: float = 30,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    codec_options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    times_s: Sequence[float] | None = None,
    start_s: float = 0.0,
    rotation: int = 0,
    audio: bool = False,
    picture: Callable[[int, int, int], np.ndarray] = numbered,
    sink: Any = None,
    sink_format: str | None = None,
) -> Path:
    """Encode `frames` pictures to `path` (or the file object `sink`) and return it.

    size: displayed (width, height). rotation: degrees clockwise that the file asks for; the pictures are stored turned
    the other way. times_s: presentation times instead of those of `fps`. start_s: shift of all times.
    """
    import av

    stored = size[::-1] if rotation in (90, 270) else size
    rate = Fraction(fps).limit_denominator(1001)
    target = sink if sink is not None else str(path)
    with av.open(target, "w", format=sink_format, options=container_options or {}) as container:
        video = container.add_stream(codec, rate=rate, options=codec_options or {})
        video.width, video.height = stored
        video.pix_fmt = pix_fmt
        ticks = [round(Fraction(i) / rate / TICK) for i in range(frames)]
        if times_s is not None:
            ticks = [round(t / TICK) for t in times_s]
        # MPEG-4 and the like take no finer time base than their rate.
        base = TICK if times_s is not None else 1 / rate
        video.codec_context.time_base = base
        if rotation:
            video.set_display_rotation(-rotation)
        sound = Silence(container) if audio else None
        for i, tick in enumerate(ticks):
            shown = np.ascontiguousarray(np.rot90(picture(i, *size), rotation // 90))
            frame = av.VideoFrame.from_ndarray(shown, "rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = round((tick * TICK + Fraction(start_s)) / base), base
            container.mux(video.encode(frame))
            if sound:
                sound.reach(float(tick * TICK))
        container.mux(video.encode(None))
        if sound:
            sound.end()
    return path


class Silence:
    """A silent audio track that grows along with the video."""

    def __init__(self, container: Any) -> None:
        self.container = container
        codec = "libopus" if "webm" in container.format.name else "aac"
        self.stream = container.add_stream(codec, rate=48000, layout="mono")
        self.stream.codec_context.open()
        self.samples = 0

    def reach(self, time_s: float) -> None:
        import av

        count = self.stream.codec_context.frame_size
        layout = self.stream.codec_context.format.name
        kind = np.float32 if layout.startswith("flt") else np.int16
        while self.samples < time_s * 48000:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, count), kind), layout, "mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, self.samples, Fraction(1, 48000)
            self.container.mux(self.stream.encode(frame))
            self.samples += count

    def end(self) -> None:
        self.container.mux(self.stream.encode(None))
