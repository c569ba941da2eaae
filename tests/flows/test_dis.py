"""DIS on a real face under known motion."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from examples.rendering import render
from flows.dis import PRESETS, dis_flow
from flows.intensity import magnitude, motion_intensity


@pytest.fixture(scope="module")
def grid() -> np.ndarray:
    return render("right", 6).grid()[:4]


def test_flow_points_where_the_face_goes(grid: np.ndarray) -> None:
    flow = dis_flow(grid, PRESETS["portrait"])
    assert flow.shape == (3, 512, 512, 2)
    assert flow.dtype == np.float32
    face = flow[:, 180:230, 230:280]
    assert face[..., 0].mean() == pytest.approx(6, rel=0.02)
    assert abs(face[..., 1].mean()) < 0.1


def test_width_and_height_do_not_change_places(grid: np.ndarray) -> None:
    flow = dis_flow(grid[:, :, 64:448], PRESETS["portrait"])  # 384 wide, 512 high
    assert flow.shape == (3, 512, 384, 2)
    upright = dis_flow(np.ascontiguousarray(grid[:, :, 64:448].swapaxes(1, 2)), PRESETS["portrait"])
    assert upright[:, 180:230, 180:230, 0].mean() == pytest.approx(0, abs=0.1)
    face = upright[:, 166:216, 180:230, 1]  # x and y swapped: the face goes down
    assert face.mean() == pytest.approx(6, rel=0.02)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_result_does_not_depend_on_threads_or_on_what_came_before(preset: str, grid: np.ndarray) -> None:
    import cv2

    settings = PRESETS[preset]
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        alone = dis_flow(grid, settings)
        cv2.setNumThreads(7)
        dis_flow(np.ascontiguousarray(grid[:2, :256, :320]), settings)
        again = dis_flow(grid, settings)
        assert cv2.getNumThreads() == 7
    finally:
        cv2.setNumThreads(before)
    assert np.array_equal(alone, again)


def test_a_still_clip_has_no_motion_at_all(grid: np.ndarray) -> None:
    still = np.repeat(grid[:1], 3, axis=0)
    assert motion_intensity(magnitude(dis_flow(still, PRESETS["portrait"]))) == 0


def test_portrait_reaches_strong_motion_with_the_steps_that_it_keeps_for_it() -> None:
    from dataclasses import replace

    clip = render("zoom_in", 15)
    grid, times = clip.grid()[6:9], clip.times()[6:9]
    true = motion_intensity(magnitude(np.stack([clip.true_flow(a, b) for a, b in pairwise(times)])))
    assert true > 20
    settings = PRESETS["portrait"]
    kept, dropped = (
        motion_intensity(magnitude(dis_flow(grid, s))) for s in (settings, replace(settings, strong_descent=None))
    )
    assert kept == pytest.approx(true, rel=0.08)
    assert dropped < kept
