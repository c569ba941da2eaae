"""Rendered frames as a video file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    fps: float,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    rotation: int = 0,
) -> None:
    """Encode uint8 RGB (h, w, 3) frames of even width and height. One thread, so that the bytes do not vary.

    rotation: degrees clockwise (0, 90, 180, 270) by which a player turns the frames, written as metadata.
    """
    from fractions import Fraction

    import av

    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream: Any = None
        for frame in frames:
            if stream is None:
                stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options or {})
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.thread_count = 1
                if rotation:
                    stream.set_display_rotation(-rotation)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
