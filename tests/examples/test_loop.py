"""The closed loop's own arithmetic, and its made-up people. The loop itself is a job of continuous integration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.loop import ASKED, Made, as_text, interval_low, render_clips, summary
from examples.rendering import render
from examples.strangers import stranger
from stages.decode import Decoder


def made(motion: str, asked: float, measured: float, obeyed: bool = True) -> Made:
    return Made(0, motion, asked, measured, obeyed, likeness=0.8, identified=True)


def fit(action: float, held_out: bool = True) -> dict:
    return {"step": 9, "held_out": held_out, "gaps": {"identity": 1.5, "text": 1.0, "action": action, "motion": 1.2}}


def test_the_report_says_what_was_measured() -> None:
    videos = [made("left", asked, 0.8 * asked + 1) for asked in ASKED]
    videos += [made("right", 5.0, 2.0, obeyed=False), made("still", 0.0, 0.5)]
    report = summary(videos, {0: fit(1.1), 1: fit(1.2), 2: fit(1.15)}, {"curate": 3.2})
    assert report["obeyed"] == 5 / 6  # asked M = 0 has no direction; holding still can be obeyed
    assert report["curve"]["5"]["mean"] == pytest.approx((5.0 + 2.0) / 2)
    assert 0.8 < report["spearman"] < 1
    assert report["control_shown"] is True
    text = as_text(report)
    assert "| 20 | 17.00 | 17.00 | 17.00 |" in text
    assert "actions obeyed (examples/obedience.py; M > 0, or still): 83%" in text
    assert "loss gap of identity on held-out clips: 1.500 over 3 seed(s)" in text


def test_control_is_claimed_only_where_three_seeds_show_it() -> None:
    videos = [made("left", asked, asked) for asked in ASKED]

    def shown(*actions: float) -> bool:
        return summary(videos, dict(enumerate(map(fit, actions))), {})["control_shown"]

    assert shown(1.10, 1.11, 1.12)
    assert not shown(1.10)  # one seed
    assert not shown(1.10, 1.11)  # two seeds
    assert not shown(0.9, 1.3, 1.1)  # the interval holds 1
    on_trained = summary(videos, {i: fit(1.1 + i / 100, held_out=False) for i in range(3)}, {})
    assert on_trained["control_shown"] is False


def test_the_interval_is_students() -> None:
    values = np.array([1.1, 1.2, 1.3])
    assert interval_low(values) == pytest.approx(1.2 - 4.303 * 0.1 / 3**0.5)
    assert interval_low(values[:1]) is None


def test_people_differ_are_repeatable_and_are_faces() -> None:
    from stages.face import Dlib, DlibParams
    from stages.frames import FrameSpec

    detector = Dlib(DlibParams.model_validate({}), FrameSpec.model_validate({}))
    detector.setup("cpu")
    frames = []
    for seed in (0, 1, 2, 1_000_000):  # 2 is drawn
        portrait, ground = stranger(seed)
        frame = render("still", portrait=portrait, ground=ground).frame(0)
        assert len(detector.detect(frame)) == 1
        frames.append(frame)
    again, ground = stranger(0)
    assert np.array_equal(render("still", portrait=again, ground=ground).frame(0), frames[0])
    assert np.abs(frames[0].astype(int) - frames[1]).mean() > 10


def test_rendered_clips_last_as_long_as_the_grid_needs(tmp_path: Path) -> None:
    from examples.loop import FRAMES

    render_clips(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["left_00000.mp4", "right_00001.mp4"]
    with Decoder(60) as decoder:
        header = decoder.header(str(tmp_path / "right_00001.mp4"), "video")
    assert header.duration_s is not None
    assert header.duration_s >= (FRAMES - 1) / 4
    before = (tmp_path / "left_00000.mp4").stat().st_mtime_ns
    render_clips(tmp_path, 2)
    assert (tmp_path / "left_00000.mp4").stat().st_mtime_ns == before
