"""Copies that a hash of the pictures misses, such as those cropped more: one face that moves in one way."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.verdicts import Measurements
from flows.kinematics import COLUMNS

WORDS = 8  # of 64 bits, of a course's hash
LEVER_PX = 100  # grid px from the middle of a face at which its turning and growing are felt as motion


def read_courses(measurements: Measurements, ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The kept videos that have a face embedding and whose face moves: their rows in `ids`, int64 (n,), in order, and
    their `course`, float32 (n, 4 (N-1))."""
    none = np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
    if not measurements.rows("SELECT 1 FROM m_face WHERE face_embedding IS NOT NULL LIMIT 1"):
        return none
    known = "code = 0 AND kind = 'video' AND face_embedding IS NOT NULL AND face_motion IS NOT NULL"
    rows, courses = [], []
    for batch in measurements.whole("decided", known, "clip_id, face_motion", ["face", "motion"]):
        flat = batch["face_motion"].flatten().flatten().to_numpy()
        found = course(flat.reshape(batch.num_rows, -1, len(COLUMNS)))
        row = pc.index_in(batch["clip_id"], value_set=ids)  # null: it has no hash
        moving = (np.abs(found).max(axis=1) > 0) & pc.is_valid(row).to_numpy(zero_copy_only=False)
        rows.append(row.fill_null(-1).to_numpy()[moving].astype(np.int64))
        courses.append(found[moving])
    if not rows:
        return none
    order = np.argsort(row_of := np.concatenate(rows))
    return row_of[order], np.concatenate(courses)[order]


def course(motion: np.ndarray) -> np.ndarray:
    """How a face moves in the picture, pair by pair, less its mean: float32 (n, 4 (N-1)), grid px per step; of each
    pair x, y, growth and turn, the latter two at LEVER_PX.

    motion: face_motion (n, N-1, 10), see flows/kinematics.py. A crop scales x and y, a mirror turns x and turn round.
    """
    column = {name: motion[..., place] for place, name in enumerate(COLUMNS)}
    x, y = column["dx"] + column["cam_dx"], column["dy"] + column["cam_dy"]
    path = np.stack([x, y, LEVER_PX * column["divergence"], LEVER_PX * column["roll"]], axis=-1)
    return (path - path.mean(axis=1, keepdims=True)).reshape(len(motion), -1).astype(np.float32)


def course_hashes(courses: np.ndarray) -> np.ndarray:
    """uint64 (2 n, WORDS): hashes of the courses (n, 4 (N-1)), and of the mirrored ones after them.

    Signs of random projections (Charikar 2002): two courses at an angle a, whose cosine is their correlation, have
    equal bits with probability 1 - a / pi: 0.85 at a correlation of 0.89. The projections are drawn with a fixed seed.
    """
    planes = np.random.default_rng(0).normal(size=(courses.shape[1], 64 * WORDS)).astype(np.float32)
    mirror = np.tile(np.array([-1, 1, 1, -1], np.float32), courses.shape[1] // 4)
    hashes = [
        np.packbits(part @ planes > 0, axis=1).view(np.uint64)
        for whole in (courses, courses * mirror)
        for part in np.array_split(whole, len(whole) // 10_000 + 1)
    ]
    return np.concatenate(hashes)
