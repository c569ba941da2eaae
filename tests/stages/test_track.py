"""The shot that a face box makes, and net path and swing of hand-made steps."""

from __future__ import annotations

import numpy as np
import pytest

from stages.track import framing, net, swing


@pytest.mark.parametrize(
    ("top", "bottom", "shot"),
    [
        (170, 440, "close-up"),
        (140, 360, "head-and-shoulders"),
        (100, 255, "upper-body"),
        (20, 82, "full-body"),
    ],
)
def test_framing(top: float, bottom: float, shot: str) -> None:
    assert framing([200, top, 200 + bottom - top, bottom], 512) == shot
    assert framing([100, top / 2, 100 + (bottom - top) / 2, bottom / 2], 256) == shot


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([1, 1, 1, 1], 4),
        ([-1, -1, -1, -1], -4),
        ([1, 1, -1, 1, 1], 0),  # 3 of 5: not steady
        ([2, 2, -0.5, 2, 2], 7.5),
        ([0.4, 0.4, 0.4, 0.4], 0),  # too little
        ([3, 3, 0, 0], 0),  # hangs on two steps
        ([3, 3, 1, 1], 8),
    ],
)
def test_net(steps: list[float], expected: float) -> None:
    assert net(np.array(steps), 2.0) == expected


@pytest.mark.parametrize(
    ("steps", "turns", "expected"),
    [
        ([3, -3, 3, -3], 2, 3.0),
        ([3, -3, 3], 2, 3.0),
        ([3, -3], 2, 0.0),  # it turns once
        ([3, 0.5, -0.5, 3, -6, 6], 2, 6.0),  # a tremble is no turn
        ([1, 1, 1, 1], 2, 0.0),
        ([3, -3, 3, -3], 4, 0.0),
        ([0.5, -0.5] * 8, 2, 0.0),
    ],
)
def test_swing(steps: list[float], turns: int, expected: float) -> None:
    assert swing(np.array(steps), 1.0, turns) == expected
    assert swing(-np.array(steps), 1.0, turns) == expected
