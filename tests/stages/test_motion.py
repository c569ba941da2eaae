"""Motion measured on video files whose motion is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.motion_accuracy import ENCODING, RIGID, SPEEDS, measure, summary
from examples.rendering import FACE_AT, Rendered, render
from examples.video import write_video
from flows.dis import PRESETS, dis_flow
from flows.intensity import foreground_means, magnitude
from flows.kinematics import COLUMNS
from stages.base import Measured, Sample
from stages.clip import Clip
from stages.decode import Decoder
from stages.frames import Frames, FrameSpec
from stages.motion import STAGE, Dis, DisParams

SPEC = FrameSpec()
VIDEO = Clip("made", "clip.mp4", "video", "stamp")
SIZE = (320, 320)
FPS = 20  # five frames a grid step
WHOLE: dict[str, Any] = {"crop": [0, 0, *SIZE], "face_frames": None, "face_boxes": None}


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(120) as decoder:
        yield decoder


def decode(decoder: Decoder, path: Path, clip: Rendered, turned: int = 0) -> Frames:
    """The frames of the clip after H.264; `turned` by quarters anticlockwise, with the metadata that undoes it."""
    frames = (np.rot90(frame, turned) for frame in clip.frames())
    write_video(path, frames, clip.fps, options=ENCODING, rotation=90 * turned)
    return decoder.frames(str(path), "video", SPEC, decoder.header(str(path), "video"))


def dis(*samples: Sample, preset: Any = "portrait") -> list[Measured]:
    engine = Dis(DisParams(preset=preset), SPEC)
    engine.setup("cpu")
    results = engine.measure(samples)
    assert all(isinstance(result, Measured) for result in results)
    return results  # type: ignore[return-value]


def with_face(frames: Frames, speed: float = 0.0, half: int = 85) -> dict[str, Any]:
    """Columns that the crop stage would give for a face that moves to the right at this speed from pair to pair."""
    x = [FACE_AT[0] + (i - 7.5) * speed for i in (0, 15)]
    boxes = [[at - half, FACE_AT[1] - half, at + half, FACE_AT[1] + half] for at in x]
    side = min(frames.native)
    left, top = ((n - side) / 2 for n in frames.native)
    return {"crop": [left, top, left + side, top + side], "face_frames": [0, 15], "face_boxes": boxes}


def named(measured: Measured) -> dict[str, float]:
    """Means of the face's kinematics over the pairs, by name."""
    means = np.mean(measured.columns["face_motion"], axis=0)
    return dict(zip(COLUMNS, means.tolist(), strict=True))


def test_a_face_that_moves_over_a_still_ground(decoder: Decoder, tmp_path: Path) -> None:
    frames = decode(decoder, tmp_path / "a.mp4", render("right", 6, size=SIZE, fps=FPS))
    (measured,) = dis(Sample(VIDEO, with_face(frames, 6), frames))
    assert measured.columns["motion_intensity"] == pytest.approx(6, rel=0.05)
    assert measured.columns["camera_motion"] == pytest.approx(0, abs=0.02)
    face = named(measured)
    assert face["dx"] == pytest.approx(6, abs=0.2)
    assert [face[k] for k in ("dy", "divergence", "roll", "cam_dx", "cam_dy")] == pytest.approx([0] * 5, abs=0.02)

    maps, maxima = measured.arrays["magnitude"], measured.arrays["maximum"]
    assert maps.dtype == np.uint8
    assert maps.shape == (15, 64, 64)
    assert maxima.dtype == np.float32
    assert maxima.shape == (15,)
    assert maps[7, 24:28, 30:34].min() > 150  # the face
    assert maps[:, :6, :].max() == 0  # the wall above it


def test_a_camera_pan_is_camera_motion_and_the_person_is_still(decoder: Decoder, tmp_path: Path) -> None:
    frames = decode(decoder, tmp_path / "a.mp4", render("pan_left", 5, size=SIZE, fps=FPS))
    (measured,) = dis(Sample(VIDEO, with_face(frames), frames))
    assert measured.columns["motion_intensity"] == pytest.approx(5, rel=0.08)
    assert measured.columns["camera_motion"] == pytest.approx(5, rel=0.02)
    face = named(measured)
    assert face["cam_dx"] == pytest.approx(5, abs=0.25)
    assert [face[k] for k in ("dx", "dy", "mouth", "cheek")] == pytest.approx([0] * 4, abs=0.2)


def test_a_tilt_to_the_right_of_the_screen_has_a_positive_roll(decoder: Decoder, tmp_path: Path) -> None:
    clip = render("tilt_right", 1.5, size=SIZE, fps=FPS)
    assert clip.one_way
    frames = decode(decoder, tmp_path / "a.mp4", clip)
    (measured,) = dis(Sample(VIDEO, with_face(frames), frames))
    assert named(measured)["roll"] == pytest.approx(0.015, rel=0.1)


def test_coming_nearer_has_a_positive_divergence(decoder: Decoder, tmp_path: Path) -> None:
    clip = render("nearer", 3, size=SIZE, fps=FPS)
    assert clip.one_way
    frames = decode(decoder, tmp_path / "a.mp4", clip)
    (measured,) = dis(Sample(VIDEO, with_face(frames), frames))
    assert named(measured)["divergence"] == pytest.approx(np.expm1(0.03), rel=0.12)


def test_talking_moves_the_mouth_more_than_the_rest(decoder: Decoder, tmp_path: Path) -> None:
    frames = decode(decoder, tmp_path / "a.mp4", render("talk", 5, size=SIZE, fps=FPS))
    (measured,) = dis(Sample(VIDEO, with_face(frames), frames))
    face = named(measured)
    assert face["mouth"] > 1
    assert face["mouth"] > 4 * face["cheek"]


def test_a_still_person_before_a_still_camera(decoder: Decoder, tmp_path: Path) -> None:
    frames = decode(decoder, tmp_path / "a.mp4", render("still", size=SIZE, fps=FPS))
    (measured,) = dis(Sample(VIDEO, with_face(frames), frames))
    assert measured.columns["motion_intensity"] < 0.05
    assert measured.columns["camera_motion"] < 0.02


def test_a_rotated_file_equals_its_unrotated_twin(decoder: Decoder, tmp_path: Path) -> None:
    clip = render("right", 5, size=(480, 320), fps=FPS)
    upright = decode(decoder, tmp_path / "upright.mp4", clip)
    rotated = decode(decoder, tmp_path / "rotated.mp4", clip, turned=1)
    assert rotated.images.shape == upright.images.shape == (16, 512, 768, 3)
    samples = [Sample(VIDEO, with_face(frames, 5), frames) for frames in (upright, rotated)]
    assert samples[1].grid().shape == (16, 512, 512, 3)
    one, other = dis(*samples)
    for column in ("motion_intensity", "camera_motion"):
        assert other.columns[column] == pytest.approx(one.columns[column], rel=0.02, abs=0.01)
    assert named(other)["dx"] == pytest.approx(5, abs=0.2)
    assert named(other) == pytest.approx(named(one), abs=0.1)


def test_the_same_motion_at_60_30_and_25_frames_a_second_gives_the_same_m(decoder: Decoder, tmp_path: Path) -> None:
    frames = {fps: decode(decoder, tmp_path / f"{fps}.mp4", render("right", 5, fps=fps, size=SIZE))
              for fps in (60, 30, 25)}  # fmt: skip
    found = [m.columns["motion_intensity"] for m in dis(*(Sample(VIDEO, WHOLE, f) for f in frames.values()))]
    assert found == pytest.approx([5] * 3, rel=0.05)
    assert max(found) / min(found) < 1.015

    # At 60 fps a quarter of a second is a whole number of frames: the first pair is as far apart as the others.
    assert np.diff(frames[60].times_s) == pytest.approx([0.25] * 15)
    per_pair = foreground_means(magnitude(dis_flow(frames[60].images, PRESETS["portrait"])))
    assert per_pair == pytest.approx([5] * 15, rel=0.08)


def test_an_image_has_no_motion_by_definition_and_needs_no_frames() -> None:
    (measured,) = dis(Sample(Clip("made", "a.png", "image", "stamp"), WHOLE, None))
    assert measured.columns == {
        "motion_intensity": 0.0,
        "camera_motion": 0.0,
        "face_motion": [[0.0] * 10] * 15,
    }
    assert measured.arrays["magnitude"].shape == (15, 64, 64)
    assert not measured.arrays["magnitude"].any()
    assert not measured.arrays["maximum"].any()


def test_results_come_in_order_and_do_not_depend_on_each_other() -> None:
    fast, slow = (
        Frames(render("right", speed).grid()[:4], np.arange(4) / 4, SIZE, "made") for speed in (8, 2)
    )  # fmt: skip
    alone = dis(Sample(VIDEO, WHOLE, slow))[0]
    first, second = dis(Sample(VIDEO, WHOLE, fast), Sample(VIDEO, WHOLE, slow))
    assert first.columns["motion_intensity"] == pytest.approx(8, rel=0.05)
    assert second.columns == alone.columns
    assert np.array_equal(second.arrays["magnitude"], alone.arrays["magnitude"])
    assert alone.columns["face_motion"] is None  # no face is known


def test_the_columns_are_those_of_the_schema() -> None:
    (measured,) = dis(Sample(Clip("made", "a.png", "image", "stamp"), WHOLE, None))
    assert {field.name for field in STAGE.fields} == {*measured.columns, "flow_path"}
    for field in STAGE.fields:
        assert pa.scalar(measured.columns.get(field.name), field.type).type == field.type


def test_the_version_names_what_the_numbers_depend_on() -> None:
    versions = {Dis(DisParams(preset=preset), SPEC).version() for preset in ("fast", "portrait")}
    assert len(versions) == 2
    assert all("opencv" in version and "DisSettings(" in version for version in versions)


def test_rules() -> None:
    limits = {"min_motion_intensity": 1.0, "max_camera_motion": 5.0}
    still, camera = STAGE.rules
    assert (still.reason, still.rejects(0.9, limits), still.rejects(1.0, limits)) == ("too_still", True, False)
    assert (camera.reason, camera.rejects(5.1, limits), camera.rejects(None, limits)) == ("camera_motion", True, False)


@pytest.mark.parametrize(("motion", "speed"), [("pan_left", 1), ("tilt_right", 1)])
def test_m_through_h264(decoder: Decoder, tmp_path: Path, motion: str, speed: float) -> None:
    assert abs(measure(decoder, tmp_path, motion, speed, "portrait")["error"]) < 10


@pytest.mark.slow
def test_error_of_m_over_all_motions_and_speeds(decoder: Decoder, tmp_path: Path) -> None:
    rows = [measure(decoder, tmp_path, motion, speed, "portrait") for motion in RIGID for speed in SPEEDS[::2]]
    assert summary(rows)["median_size"] < 5
    assert summary(rows)["largest_size"] < 10


@pytest.mark.slow
def test_real_clips(decoder: Decoder, shared: Path) -> None:
    from stages.crop import Square, SquareParams
    from stages.face import Dlib, DlibParams

    faces, crops = Dlib(DlibParams(), SPEC), Square(SquareParams(), SPEC)
    faces.setup("cpu")
    intensity = {}
    for name in ("driving_d10", "driving_d11", "driving_d12", "driving_d14", "source_s13", "source_s32"):
        path = str(shared / "clips" / f"{name}.mp4")
        header = decoder.header(path, "video")
        columns: dict[str, Any] = {"width": header.width, "height": header.height}
        frames = decoder.frames(path, "video", SPEC, header)
        for engine in (faces, crops):
            (found,) = engine.measure([Sample(VIDEO, columns, frames)])
            assert isinstance(found, Measured)
            columns |= found.columns
        intensity[name] = dis(Sample(VIDEO, columns, frames))[0].columns["motion_intensity"]
    ranked = sorted(intensity, key=intensity.__getitem__)
    assert set(ranked[-2:]) == {"driving_d12", "source_s13"}
    assert intensity[ranked[-2]] > 20
    assert ranked[0] == "driving_d14"
