"""What comes of decoding a file, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stages.base import ClipError
from stages.decode import Decoder
from stages.frames import Frames, FrameSpec
from tests.media import number_of

SPEC = FrameSpec(fps=4, count=16, size=64)


def read(decoder: Decoder, path: Path | str, kind: str = "video") -> Frames:
    header = decoder.header(str(path), kind)
    return decoder.frames(str(path), kind, SPEC, header)


def outcome_of(decoder: Decoder, path: Path | str, kind: str = "video") -> Frames | ClipError:
    try:
        return read(decoder, path, kind)
    except ClipError as caught:
        return caught


def error(decoder: Decoder, path: Path | str, kind: str = "video") -> ClipError:
    outcome = outcome_of(decoder, path, kind)
    assert isinstance(outcome, ClipError)
    return outcome


def true_frames(frames: Frames) -> bool:
    """Whether each frame is the one that was shown at its time, and the times are a grid's."""
    shown = np.round(frames.times_s * 30).astype(int).tolist()
    return bool(np.abs(np.diff(frames.times_s) - 0.25).max() < 0.03) and [number_of(i) for i in frames.images] == shown
