"""The closed loop's own arithmetic, and its made-up people. The loop itself is a job of continuous integration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.loop import MOTIONS, asked_of, highest, render_clips
from examples.loop_report import ASKED, Made, as_text, interval_low, summary
from examples.rendering import render
from examples.strangers import stranger
from stages.decode import Decoder


def made(motion: str, asked: float, measured: float, obeyed: bool = True, seed: int = 0) -> Made:
    return Made(seed, 0, motion, asked, measured, obeyed, likeness=0.8, identified=True)


def fit(action: float, held_out: bool = True) -> dict:
    return {"step": 9, "held_out": held_out, "gaps": {"identity": 1.5, "text": 1.0, "action": action, "motion": 1.2}}


def test_the_report_says_what_was_measured() -> None:
    videos = [made("left", asked, 0.8 * asked + 1) for asked in ASKED]
    videos += [made("right", 5.0, 2.0, obeyed=False), made("still", 0.0, 0.5)]
    videos += [made("left", asked, asked, seed=1) for asked in ASKED]
    report = summary(videos, {0: fit(1.1), 1: fit(1.2), 2: fit(1.15)}, {"curate": 3.2})
    assert report["obeyed"] == {0: 5 / 6, 1: 1.0}  # asked M = 0 has no direction; holding still can be obeyed
    assert report["obeyed_by_motion"] == {"left": 1.0, "right": 0.0, "still": 1.0}
    assert report["curve"]["5"]["mean"] == pytest.approx((5.0 + 2.0 + 5.0) / 3)
    assert 0.8 < report["spearman"][0] < 1
    assert report["spearman"][1] == pytest.approx(1)
    assert report["spearman_by_motion"] == {"left": pytest.approx(80 / (80 * 82) ** 0.5)}
    assert report["control_shown"] is True
    text = as_text(report)
    assert "| 20 | 18.50 | 17.00 | 20.00 |" in text
    obeyed = "92% (of each seed: 83%, 100%); left 100%, right 0%, still 100%"
    assert f"actions obeyed (examples/obedience.py; M > 0, or still): {obeyed}" in text
    assert text.count("; left 0.99\n") == 1
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


def test_what_is_asked_is_what_a_motion_has_room_for() -> None:
    assert all(asked_of(motion, 8) == list(ASKED) for motion in ("left", "up", "nearer", "head_nod"))
    assert asked_of("still", 8) == [0]
    longer = {motion: asked_of(motion, 16)[-1] for motion in ("left", "up", "nearer", "head_nod", "still")}
    assert longer == {"left": 15, "up": 10, "nearer": 10, "head_nod": 20, "still": 0}


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


@pytest.mark.parametrize("frames", [8, 16])
def test_rendered_clips_last_as_long_as_the_grid_needs(tmp_path: Path, frames: int) -> None:
    render_clips(tmp_path, 2, frames)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["left_00000.mp4", "right_00001.mp4"]
    with Decoder(60) as decoder:
        header = decoder.header(str(tmp_path / "right_00001.mp4"), "video")
    assert header.duration_s is not None
    assert header.duration_s >= (frames - 1) / 4
    before = (tmp_path / "left_00000.mp4").stat().st_mtime_ns
    render_clips(tmp_path, 2, frames)
    assert (tmp_path / "left_00000.mp4").stat().st_mtime_ns == before


def test_no_motion_turns_back_for_want_of_room() -> None:
    for motion in ("left", "up", "nearer"):
        for frames in (8, 16):
            assert render(motion, highest(motion, frames), seconds=(frames + 1) / 4).one_way
    assert all(highest(motion, 8) > MOTIONS[motion] for motion in ("left", "up", "nearer", "head_nod"))  # M > 20
    assert highest("up", 16) == pytest.approx(200 / 17)
