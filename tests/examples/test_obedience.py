"""Which action a flow shows."""

from __future__ import annotations

import numpy as np
import pytest

from examples.loop import MOTIONS
from examples.obedience import divergence, shown

PAIRS, SIDE = 7, 64


def flow(*steps: tuple[float, float], growth: float = 0.0) -> np.ndarray:
    """A disc that moves by a step per pair and grows about its middle; the rest is still."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    inside = (x**2 + y**2 < 20**2)[..., None]
    return np.stack([inside * (np.stack([x, y], -1) * growth + step) for step in steps]).astype(np.float32)


@pytest.mark.parametrize(
    ("field", "motions"),
    [
        (flow(*[(-3, 1)] * PAIRS), ["left"]),
        (flow(*[(3, 1)] * PAIRS), ["right"]),
        (flow(*[(0.5, -2)] * PAIRS), ["up"]),  # y runs down
        (flow(*[(-1, 1.2)] * PAIRS), ["down"]),
        (flow(*[(0, 0)] * PAIRS), ["still"]),
        (flow(*[(0, 4), (0, 4), (0, -3.9), (0, -4)] * 2), ["down", "head_nod"]),
        (flow(*[(4, 0), (4, 0), (-4, 0), (-3.9, 0)] * 2), ["right"]),  # shakes the head
        (flow(*[(0.01, 0)] * PAIRS, growth=0.1), ["nearer"]),
    ],
)
def test_each_motion_is_told_from_the_others(field: np.ndarray, motions: list[str]) -> None:
    seen = shown(field)
    obeyed = [motion for motion in MOTIONS if seen.obeys(motion)]
    assert set(motions) - set(obeyed) == set()
    assert set(obeyed) - set(motions) <= ({"right"} if "nearer" in motions else set())


def test_divergence_is_the_relative_growth_whatever_the_shift() -> None:
    field = flow((5.0, -3.0), growth=0.02)[0]
    assert divergence(field, np.hypot(*field.transpose(2, 0, 1)) > 0) == pytest.approx(0.02, abs=1e-4)
