"""The packets of a video stream as numbers, and which of its frames are wanted."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stages.grid_times import nearest
from stages.picture import MediaError


@dataclass
class Table:
    """The packets of a video stream in decoding order, as far as they could be read.

    pts, dts: int64 (n,), in units of `base` seconds; key, shown: bool (n,); a packet not shown is only decoded for
    others (edit lists). last_s: how long the last frame is shown. timed: whether pts can be relied on. clean: whether
    every packet is whole. zero: pts of the file's first frame where the table does not begin with it.
    order: indices of the shown packets by presentation; seconds: their times.
    """

    base: float
    pts: np.ndarray
    dts: np.ndarray
    key: np.ndarray
    shown: np.ndarray
    last_s: float
    timed: bool
    clean: bool
    zero: int | None = None
    order: np.ndarray = field(init=False)
    seconds: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        shown = np.flatnonzero(self.shown)
        self.order = shown[np.argsort(self.pts[shown], kind="stable")]  # packets by presentation
        stamps = self.pts[self.order]
        zero = stamps[:1] if self.zero is None else self.zero
        self.seconds = (stamps - zero) * self.base

    @property
    def length_s(self) -> float:
        """From the first frame to the end of the last one."""
        return float(self.seconds[-1]) + self.last_s


def choose(
    seconds: np.ndarray, last_s: float, wanted_s: np.ndarray, stride: int | None, fps: float, whole_s: float
) -> np.ndarray:
    """Positions of the frames nearest to the wanted times, among frames shown at `seconds`, the last for `last_s`; with
    `stride`, every stride-th one from the first. Raises MediaError where the file ends before."""
    chosen = nearest(seconds, wanted_s)
    if stride is not None:
        # A span that holds just as many frames must not lose the last one to a rounded time.
        last_start = len(seconds) - 1 - stride * (len(wanted_s) - 1)
        chosen = max(0, min(chosen[0], last_start)) + stride * np.arange(len(wanted_s))
    have = float(seconds[-1]) + last_s + 0.5 / fps + 1e-3
    late = wanted_s > have if stride is None else chosen >= len(seconds)
    if late.any():
        first = wanted_s[np.argmax(late)]
        raise MediaError(f"ends early: frame at {first:.2f} s of {whole_s:.2f} s cannot be decoded")
    return chosen
