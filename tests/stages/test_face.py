"""Columns from detections, and dlib on a known portrait and on the real clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data

from stages.detection import Detection, face_columns
from stages.face import STAGE, Dlib, DlibParams
from stages.frames import FrameSpec
from tests.stages.samples import FEW, NAMES, STILLS, columns_of, real, sample, verdict

PORTRAIT = skimage.data.astronaut()
THRESHOLDS = {"max_faces": 1, "min_face_fraction": 0.75, "min_face_score": 0.5}
BIG = Detection((10, 20, 50, 60), 1.5)
SMALL = Detection((60, 20, 80, 40), 2.5)


def test_columns_of_one_face() -> None:
    moved = Detection((12, 20, 52, 60), 2.5)
    assert face_columns({0: [BIG], 5: [moved]}, (100, 100)) == {
        "face_count": 1,
        "face_count_frame": 0,
        "face_fraction": 1.0,
        "face_score": 2.0,
        "face_frames": [0, 5],
        "frame_boxes": [[10, 20, 50, 60], [12, 20, 52, 60]],
        "frame_landmarks": None,
        "face_embedding": None,
        "face_similarity": None,
    }


def test_the_largest_face_speaks_for_its_frame() -> None:
    found = face_columns({0: [BIG], 5: [SMALL, BIG]}, (100, 100))
    assert found["face_count_frame"] == 5
    assert found["frame_boxes"] == [[10, 20, 50, 60]] * 2
    assert found["face_score"] == 1.5
    assert found["face_count"] == 2
    assert found["face_fraction"] == 0.5


def test_what_lies_outside_the_picture_does_not_count_for_size() -> None:
    outside = Detection((-80, -80, 10, 10), 3.0)
    found = face_columns({0: [outside, SMALL]}, (100, 100))
    assert found["frame_boxes"] == [[60, 20, 80, 40]]
    assert face_columns({0: [outside]}, (100, 100))["frame_boxes"] == [[0, 0, 10, 10]]
    assert face_columns({0: [Detection((90, 50, 130, 90), 3.0)]}, (70, 100))["frame_boxes"] == [[90, 50, 100, 70]]


def test_landmarks_belong_to_the_largest_faces() -> None:
    eyes = tuple(float(i) for i in range(10))
    marked = Detection(BIG.box, 1.0, eyes)
    assert face_columns({3: [SMALL, marked]}, (100, 100))["frame_landmarks"] == [list(eyes)]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ([[], [], [], []], "no_face"),
        ([[BIG], [BIG], [BIG, SMALL], [BIG]], "multiple_faces"),
        ([[BIG], [BIG], [], []], "face_lost"),
        ([[BIG], [BIG], [BIG], []], None),
        ([[Detection(BIG.box, 0.4)]] * 4, "low_face_confidence"),
    ],
)
def test_verdicts(found: list[list[Detection]], reason: str | None) -> None:
    columns = face_columns(dict(enumerate(found)), (100, 100))
    assert verdict(STAGE, columns, THRESHOLDS) == reason


@pytest.fixture(scope="module")
def engine() -> Dlib:
    engine = Dlib(DlibParams(), FrameSpec())
    engine.setup("cpu")
    return engine


def test_a_known_portrait(engine: Dlib) -> None:
    face, *others = engine.detect(PORTRAIT)
    assert not others
    assert face.score > 1
    x0, y0, x1, y1 = face.box
    assert x1 - x0 == y1 - y0
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == (pytest.approx(224, abs=15), pytest.approx(120, abs=20))


def test_clips_by_what_they_show(engine: Dlib) -> None:
    black = np.zeros_like(PORTRAIT)
    alone = np.stack([PORTRAIT] * 16)
    lost = np.stack([PORTRAIT] * 8 + [black] * 8)
    two = np.stack([np.concatenate([PORTRAIT, PORTRAIT[:, ::-1]], axis=1)] * 16)
    none = np.stack([black] * 16)
    results = [columns_of(result) for result in engine.measure([sample(x) for x in (alone, lost, two, none)])]
    assert [set(result) for result in results] == [{field.name for field in STAGE.fields}] * 4
    assert [result["face_count"] for result in results] == [1, 1, 2, 0]
    assert [result["face_fraction"] for result in results] == [1.0, 0.5, 0.0, 0.0]
    assert [result["face_frames"] for result in results] == [[0, 5, 10, 15], [0, 5], [0, 5, 10, 15], []]
    assert results[3]["face_score"] is None
    assert results[3]["frame_boxes"] == []
    reasons = [verdict(STAGE, result, THRESHOLDS) for result in results]
    assert reasons == [None, "face_lost", "multiple_faces", "no_face"]


def test_a_small_face_needs_the_upsampling(engine: Dlib) -> None:
    import cv2

    small = cv2.resize(PORTRAIT, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)  # a face of about 55 px
    plain = Dlib(DlibParams(upsample=0), FrameSpec())
    plain.setup("cpu")
    assert len(engine.detect(small)) == 1
    assert plain.detect(small) == []


def test_detections_below_the_score_are_none() -> None:
    strict = Dlib(DlibParams(min_score=3.5), FrameSpec())
    strict.setup("cpu")
    assert strict.detect(PORTRAIT) == []


def check_real(shared: Path, frames: int, clips: list[str], stills: list[str]) -> None:
    """Exactly one face on each of these real clips and stylised portraits."""
    engine = Dlib(DlibParams(frames=frames), FrameSpec())
    engine.setup("cpu")
    for file in [shared / "clips" / name for name in clips] + [shared / "stills" / name for name in stills]:
        found = columns_of(engine.measure([real(file)])[0])
        assert (found["face_count"], found["face_fraction"]) == (1, 1.0), file.name
        assert verdict(STAGE, found, THRESHOLDS) is None


def test_one_face_on_real_clips(shared: Path) -> None:
    check_real(shared, 2, FEW, STILLS[:2])


@pytest.mark.slow
@pytest.mark.parametrize("frames", [DlibParams().frames, 16])
def test_one_face_on_all_real_clips(shared: Path, frames: int) -> None:
    check_real(shared, frames, NAMES, STILLS)


def test_of_a_still_one_frame_is_looked_at(shared: Path, engine: Dlib) -> None:
    found = columns_of(engine.measure([real(shared / "stills" / "group.jpg")])[0])
    assert found["face_frames"] == [0]
    assert found["face_count"] >= 5
    assert verdict(STAGE, found, THRESHOLDS) == "multiple_faces"
