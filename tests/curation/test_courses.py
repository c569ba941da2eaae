"""Copies that the pictures' hash misses are found by the course of one face, and only where it is one face."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation.courses import MIRROR, course, hash_of, is_telling
from flows.kinematics import COLUMNS
from tests.curation.test_duplicates import decided, hashes, made_of

ME, YOU = [1.0, 0.0], [0.0, 1.0]
PIXELS = ("dx", "dy", "mouth", "cheek", "cam_dx", "cam_dy")  # columns that a crop enlarges
MIRRORED = ("dx", "roll", "cam_dx", "cam_roll")  # columns whose sign a mirror turns


NOD = np.zeros((15, len(COLUMNS)), np.float32)
NOD[:, COLUMNS.index("dy")] = 5 * np.sin(2 * np.pi * 0.7 * np.arange(15) / 4)


def motion(seed: int, pairs: int = 15) -> np.ndarray:
    """Face motion (pairs, 10): head and camera go their ways, in the units of the columns."""
    scale = [1.0 if name in PIXELS else 0.01 for name in COLUMNS]
    return (np.random.default_rng(seed).normal(size=(pairs, len(COLUMNS))) * scale).astype(np.float32)


def copied(rows: np.ndarray, enlarged: float = 1.0, mirrored: bool = False, noise: float = 0.0) -> np.ndarray:
    out = rows.copy()
    for place, name in enumerate(COLUMNS):
        out[:, place] *= (enlarged if name in PIXELS else 1) * (-1 if mirrored and name in MIRRORED else 1)
    return out + noise * np.abs(rows).mean(axis=0) * np.random.default_rng(9).normal(size=rows.shape).astype(np.float32)


def equal_bits(a: np.ndarray, b: np.ndarray) -> float:
    """The share of equal bits of the hashes of two courses, the better of b's as it is and mirrored."""
    courses = course(np.stack([a, b]))
    (one, other), (_, mirrored) = hash_of(courses), hash_of(courses * MIRROR)
    return 1 - min(np.bitwise_count(one ^ h).sum() for h in (other, mirrored)) / 512


def test_a_crop_a_mirror_and_a_little_noise_leave_the_course() -> None:
    rows = motion(0)
    assert equal_bits(rows, rows) == 1
    assert equal_bits(rows, copied(rows, mirrored=True)) > 0.99
    assert equal_bits(rows, copied(rows, enlarged=1.3)) > 0.9
    assert equal_bits(rows, copied(rows, enlarged=1.2, mirrored=True, noise=0.2)) > 0.88


def test_others_have_other_courses() -> None:
    assert max(equal_bits(motion(0), motion(seed)) for seed in range(1, 200)) < 0.7


def test_the_share_of_equal_bits_is_that_of_the_angle() -> None:
    rng = np.random.default_rng(3)
    x, noise = rng.normal(size=(2, 2000, 60)).astype(np.float32)
    one, other = (hash_of(rows.reshape(-1, 15, 4)) for rows in (x, x + 0.5 * noise))
    share = 1 - np.bitwise_count(one ^ other).sum(axis=1) / 512
    assert share.mean() == pytest.approx(1 - np.arccos(1 / np.sqrt(1.25)) / np.pi, abs=0.002)


def test_a_course_that_many_clips_share_tells_nothing() -> None:
    start = np.zeros_like(NOD)
    start[6, COLUMNS.index("dy")] = 20
    rows = np.stack(
        [motion(0), NOD, start, 1e-6 * motion(0), np.ones_like(NOD), np.zeros_like(NOD), NOD + 2 * motion(2)]
    )
    assert is_telling(course(rows)).tolist() == [True, False, False, False, False, False, True]
    assert is_telling(course(copied(motion(0), enlarged=1.3, mirrored=True)[None])).all()


def test_a_face_followed_by_the_camera_has_the_course_of_one_that_moves() -> None:
    rows = motion(0)
    followed = rows.copy()
    for own, camera in (("dx", "cam_dx"), ("dy", "cam_dy"), ("divergence", "cam_zoom"), ("roll", "cam_roll")):
        followed[:, COLUMNS.index(camera)] += followed[:, COLUMNS.index(own)]
        followed[:, COLUMNS.index(own)] = 0
    assert np.allclose(course(rows[None]), course(followed[None]), atol=1e-5)


def shown(
    name: int, rows: np.ndarray | None, face: list[float] | None, m: float = 5.0, **stages: Any
) -> dict[str, Any]:
    """Measurements of a clip whose hash is like no other's."""
    moves = {"motion_intensity": m, "face_motion": None if rows is None else rows.tolist()}
    return {"hash": {"frame_hash": hashes(1, seed=100 + name)[0].tolist()}, "motion": moves} | {
        "face": {"face_embedding": face},
        "quality": {"quality_score": 0.9 - name / 100},
        **stages,
    }


def test_crops_of_one_take_are_copies_and_only_those(tmp_path: Path) -> None:
    rows = motion(0)
    still = np.zeros((15, len(COLUMNS)), np.float32)
    clips = {
        "take.mp4": shown(0, rows, ME),
        "cropped.mp4": shown(1, copied(rows, enlarged=1.3, noise=0.1), ME, m=6.5),
        "mirrored.mp4": shown(2, copied(rows, mirrored=True), [0.9, 0.436]),
        "faster.mp4": shown(3, rows, ME, m=11),
        "other-face.mp4": shown(4, rows, YOU),
        "other-take.mp4": shown(5, motion(1), ME),
        "no-embedding.mp4": shown(6, rows, None),
        "no-course.mp4": shown(7, None, ME),
        "nod-1.mp4": shown(12, NOD, ME),
        "nod-2.mp4": shown(13, NOD, ME),
        "still-1.mp4": shown(8, still, ME),
        "still-2.mp4": shown(9, still, ME),
        "image.png": shown(10, rows, ME, clip={"kind": "image"}),
        "unhashed.mp4": shown(11, rows, ME) | {"hash": {}},
    }
    found = {name: end for name, end in decided(made_of(tmp_path, clips)).items() if end[0] != "kept"}
    assert found == {"cropped.mp4": ("duplicate", "take.mp4"), "mirrored.mp4": ("duplicate", "take.mp4")}


def test_a_picture_that_differs_speaks_against_a_copy(tmp_path: Path) -> None:
    rows = motion(0)
    clips = {
        "a.mp4": shown(0, rows, ME, embedding={"frame_embedding": ME}),
        "b.mp4": shown(1, rows, ME, embedding={"frame_embedding": YOU}),
    }
    assert decided(made_of(tmp_path, clips)) == {"a.mp4": ("kept", None), "b.mp4": ("kept", None)}


def test_without_embeddings_no_course_is_read(tmp_path: Path) -> None:
    rows = motion(0)
    clips = {"a.mp4": shown(0, rows, None), "b.mp4": shown(1, rows, None)}
    assert decided(made_of(tmp_path, clips)) == {"a.mp4": ("kept", None), "b.mp4": ("kept", None)}
