"""The rendered clips are what they are said to be: the true flow explains the frames, the faults are faults."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from examples.motions import MOTIONS
from examples.portraits import FAULTY, GOOD, write_all, write_clip
from examples.rendering import FACE_AT, render
from examples.video import write_video

FACE = np.s_[180:220, 236:276]  # rows, columns of the middle of the face at rest


def explained(before: np.ndarray, after: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Absolute difference in grey levels between a frame and the next one seen along the flow, where the flow is
    smooth (elsewhere something comes out of hiding)."""
    import cv2

    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    seen = cv2.remap(after, x + flow[..., 0], y + flow[..., 1], cv2.INTER_CUBIC)
    size = np.linalg.norm(flow, axis=-1)
    kernel = np.ones((2 * int(size.max()) + 9,) * 2)
    rough = cv2.dilate(size, kernel) - cv2.erode(size, kernel) > 0.5 * size.max()
    inside = (x + flow[..., 0] > 4) & (x + flow[..., 0] < 507) & (y + flow[..., 1] > 4) & (y + flow[..., 1] < 507)
    return np.abs(seen.astype(int) - before.astype(int)).mean(-1)[inside & (~rough | (size > 0.7 * size.max()))]


@pytest.mark.parametrize("motion", sorted(set(MOTIONS) - {"still"}))
def test_true_flow_explains_the_frames(motion: str) -> None:
    clip = render(motion, 6)
    t = 0.05
    before, after = clip.frame(t), clip.frame(t + 0.25)
    flow = clip.true_flow(t, t + 0.25)
    moved = np.linalg.norm(flow, axis=-1) > 2
    assert moved.mean() > 0.002
    assert explained(before, after, flow).mean() < 2
    assert np.abs(before.astype(int) - after)[moved].mean() > 3 * explained(before, after, flow).mean()


@pytest.mark.parametrize(
    ("motion", "direction"), [("left", (-1, 0)), ("right", (1, 0)), ("up", (0, -1)), ("down", (0, 1))]
)
@pytest.mark.parametrize("speed", [1, 7, 12])
def test_a_moving_face_moves_by_its_speed_each_quarter_second(motion: str, direction: tuple, speed: int) -> None:
    clip = render(motion, speed)
    flow = clip.true_flow(1.875, 2.125)
    np.testing.assert_allclose(flow[FACE], np.broadcast_to(np.multiply(direction, speed), (40, 40, 2)), atol=1e-4)
    assert np.abs(flow[:100, :100]).max() == 0  # the wall stands still


@pytest.mark.parametrize("speed", range(1, 16))
def test_sideways_motion_keeps_its_direction_and_the_face_in_the_picture(speed: int) -> None:
    clip = render("right", speed)
    assert clip.one_way
    x = [FACE_AT[0] + speed * (t - 2) * 4 for t in (0.0, 3.96)]
    assert x[0] - 110 * 1.3 / 2 > 0
    assert x[1] + 110 * 1.3 / 2 < 512
    for a, b in list(pairwise(clip.times()))[::7]:
        centre = round(FACE_AT[0] + speed * (a - 2) * 4)
        assert clip.true_flow(a, b)[200, centre, 0] == pytest.approx(speed, abs=1e-4)


def test_a_path_too_long_for_its_room_turns_back() -> None:
    clip = render("up", 14)
    assert not clip.one_way
    speeds = [round(float(clip.true_flow(t, t + 0.25)[205, 256, 1])) for t in (0.5, 1.9, 3.1)]
    assert speeds == [14, -14, 14]  # down, up, down


def test_a_pan_moves_everything_alike() -> None:
    flow = render("pan_right", 8).true_flow(1, 1.25)
    np.testing.assert_allclose(flow, np.broadcast_to([-8, 0], flow.shape), atol=1e-4)


@pytest.mark.parametrize(("motion", "sign"), [("tilt_right", 1), ("tilt_left", -1)])
def test_a_tilt_to_the_right_of_the_screen_is_clockwise(motion: str, sign: int) -> None:
    flow = render(motion, 1.5).true_flow(1.875, 2.125)
    assert np.sign(flow[110, 256, 0]) == sign  # the crown
    assert np.sign(flow[200, 320, 1]) == sign  # the ear at the right
    curl = np.gradient(flow[..., 1], axis=1) - np.gradient(flow[..., 0], axis=0)
    np.testing.assert_allclose(curl[FACE] / 2, sign * 0.015, rtol=0.01)


def test_nearer_grows_and_farther_shrinks() -> None:
    for motion, sign in (("nearer", 1), ("farther", -1)):
        flow = render(motion, 2).true_flow(1.875, 2.125)
        growth = (np.gradient(flow[..., 0], axis=1) + np.gradient(flow[..., 1], axis=0))[FACE] / 2
        np.testing.assert_allclose(growth, sign * 0.02, rtol=0.03)


@pytest.mark.parametrize(("motion", "axis"), [("nod", 1), ("shake", 0)])
def test_nods_and_shakes_swing_at_the_mean_speed_asked_for(motion: str, axis: int) -> None:
    clip = render(motion, 5)
    starts = np.arange(0, 1.5, 0.05)
    flows = np.array([clip.true_flow(t, t + 0.25)[205, 256] for t in starts])
    assert np.abs(flows[:, axis]).mean() == pytest.approx(5, rel=0.12)  # of the pixel that passes there, not the point
    assert np.abs(flows[:, 1 - axis]).max() < 1e-6
    assert abs(flows[:, axis].mean()) < 0.5


def test_talk_moves_only_what_is_below_the_lips() -> None:
    flow = np.abs(render("talk", 5).true_flow(0.1, 0.3)).max(-1)
    assert flow[250:275, 236:276].max() > 3
    assert flow[:230].max() == 0
    assert flow[:, :150].max() == 0


def test_the_grid_is_the_square_in_the_middle_of_a_wide_or_tall_frame() -> None:
    square = render("left", 4).frame(1.0)
    wide = render("left", 4, size=(768, 512)).frame(1.0)[:, 128:640]
    tall = render("left", 4, size=(512, 720)).frame(1.0)[104:616]
    assert np.abs(wide.astype(int) - square).mean() < 0.1
    assert np.abs(tall.astype(int) - square).mean() < 0.1


@pytest.mark.parametrize("motion", ["left", "nod", "pan_left"])
def test_a_larger_frame_shows_the_same(motion: str) -> None:
    import cv2

    small, large = render(motion, 4).frame(1.0), render(motion, 4, size=(1024, 1024)).frame(1.0)
    assert np.abs(cv2.resize(large, (512, 512), interpolation=cv2.INTER_AREA).astype(int) - small).mean() < 3


def test_the_same_instant_looks_the_same_at_any_frame_rate() -> None:
    for fps in (25, 30, 60):
        clip = render("nod", 4, fps=fps, seconds=0.5)
        assert np.array_equal(list(clip.frames())[fps // 5], render("nod", 4).frame(0.2))


def decode(path: Path) -> list[np.ndarray]:
    import av

    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_written_clip_is_its_frames_and_writing_is_deterministic(tmp_path: Path) -> None:
    truth = write_clip(tmp_path / "left_6.mp4")
    assert truth == {"status": "kept", "reason": None, "motion_intensity": 6.0, "action": "left"}
    frames = decode(tmp_path / "left_6.mp4")
    assert len(frames) == 100
    assert np.abs(frames[40].astype(int) - render("left", 6).frame(1.6)).mean() < 4
    (tmp_path / "again").mkdir()
    write_clip(tmp_path / "again" / "left_6.mp4")
    assert (tmp_path / "again" / "left_6.mp4").read_bytes() == (tmp_path / "left_6.mp4").read_bytes()


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotation_is_metadata_for_a_clockwise_turn(tmp_path: Path, turn: int) -> None:
    import av

    write_video(tmp_path / "turned.mp4", [render("still", size=(768, 512)).frame(0)] * 2, 25, rotation=turn)
    with av.open(str(tmp_path / "turned.mp4")) as container:
        frame = next(container.decode(video=0))
    assert (frame.width, frame.height) == (768, 512)  # stored as given
    assert -frame.rotation % 360 == turn  # PyAV counts counterclockwise


@pytest.mark.parametrize("name", ["truncated.mp4", "empty.mp4", "text_file.mp4"])
def test_broken_files_cannot_be_opened(tmp_path: Path, name: str) -> None:
    import av

    truth = write_clip(tmp_path / name)
    assert truth == {"status": "failed", "reason": None}
    with pytest.raises(av.error.InvalidDataError):
        decode(tmp_path / name)


@pytest.mark.slow
def test_every_clip_shows_what_its_truth_says(tmp_path: Path) -> None:
    import cv2
    import dlib
    from skimage.measure import blur_effect

    truth = write_all(tmp_path)
    assert json.loads((tmp_path / "truth.json").read_text()) == truth
    assert set(truth) == {*GOOD, *FAULTY}
    detector = dlib.get_frontal_face_detector()
    for name, true in truth.items():
        if true["status"] == "failed":
            continue
        frames = decode(tmp_path / name)
        shown = [frames[i] for i in (3, len(frames) // 2, len(frames) - 4)]
        scores = [detector.run(frame, 1, 0.0)[1] for frame in shown]
        faces = {sum(score >= 0.7 for score in of_frame) for of_frame in scores}
        expected = {"no_face": {0}, "multiple_faces": {2}}.get(true["reason"], {1})
        sharpness = 1 - blur_effect(cv2.cvtColor(shown[1], cv2.COLOR_RGB2GRAY))
        if true["reason"] == "quality":
            assert sharpness < 0.3
        else:
            assert faces == expected, (name, scores)
            assert sharpness > 0.5, name
        assert (min(frames[0].shape[:2]) < 512) == (true["reason"] == "resolution"), name
        assert (len(frames) / 25 < 3.75) == (true["reason"] == "too_short"), name
