"""Copies that a hash of the pictures misses, such as those cropped more: one face that moves in one way."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.verdicts import Measurements
from flows.kinematics import COLUMNS

WORDS = 8  # of 64 bits, of a course's hash
LEVER_PX = 100  # grid px from the middle of a face at which its turning and growing are felt as motion
LEAST_PX = 0.1  # root mean square per step of a course that is more than noise
# How many pairs, and how many of its frequencies, a course must be spread over: a nod, or one start, is like any other.
# Windows of real clips had 4.2 to 11.6, and but for one 4.8 to 13.8; made nods of one frequency have 1.1 to 2.9.
VARIETY = 4.0
MIRROR = (-1, 1, 1, -1)  # what a mirror makes of a course's x, y, growth and turn


def course_hashes(measurements: Measurements, ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Of the kept videos that have a face embedding and a telling course: their rows in `ids`, int64 (n,), in order,
    and uint64 (2 n, WORDS): the hashes of their courses, then those of the mirrored ones."""
    none = np.zeros(0, np.int64), np.zeros((0, WORDS), np.uint64)
    if not measurements.rows("SELECT 1 FROM m_face WHERE face_embedding IS NOT NULL LIMIT 1"):
        return none
    known = "code = 0 AND kind = 'video' AND face_embedding IS NOT NULL AND face_motion IS NOT NULL"
    named, plain, mirrored = [], [], []
    for batch in measurements.whole("decided", known, "clip_id, face_motion", ["face", "motion"]):
        flat = batch["face_motion"].flatten().flatten().to_numpy()
        courses = course(flat.reshape(batch.num_rows, -1, len(COLUMNS)))
        telling = is_telling(courses)
        named.append(batch["clip_id"].filter(pa.array(telling)))
        plain.append(hash_of(courses[telling]))
        mirrored.append(hash_of(courses[telling] * MIRROR))
    if not named:
        return none
    rows = pc.index_in(pa.concat_arrays(named), value_set=ids).fill_null(-1).to_numpy()  # -1: without a frame_hash
    order = np.argsort(rows)[np.count_nonzero(rows < 0) :]
    return rows[order].astype(np.int64), np.concatenate([np.concatenate(of)[order] for of in (plain, mirrored)])


def course(motion: np.ndarray) -> np.ndarray:
    """How a face moves in the picture, less its mean: float32 (n, N-1, 4), grid px per step: x, y, growth and turn, the
    latter two at LEVER_PX.

    motion: face_motion (n, N-1, 10), see flows/kinematics.py; the camera's motion there is that of the picture's
    middle. A crop scales x and y; for a mirror see MIRROR.
    """
    column = {name: motion[..., place] for place, name in enumerate(COLUMNS)}
    growth, turn = column["divergence"] + column["cam_zoom"], column["roll"] + column["cam_roll"]
    x, y = column["dx"] + column["cam_dx"], column["dy"] + column["cam_dy"]
    path = np.stack([x, y, LEVER_PX * growth, LEVER_PX * turn], axis=-1)
    return (path - path.mean(axis=1, keepdims=True)).astype(np.float32)


def is_telling(courses: np.ndarray) -> np.ndarray:
    """bool (n,): whether courses (n, N-1, 4) are more than noise, and of a kind that two clips hardly share by chance:
    spread over VARIETY pairs and frequencies at least, by the participation ratio (sum of energies)^2 / sum of squares.
    """
    energy = np.square(courses).sum(axis=2)
    spectrum = np.square(np.abs(np.fft.rfft(courses, axis=1))).reshape(len(courses), 4 * (courses.shape[1] // 2 + 1))
    telling = energy.mean(axis=1) > LEAST_PX**2
    for parts in (energy, spectrum):
        telling &= parts.sum(axis=1) ** 2 >= VARIETY * np.square(parts).sum(axis=1)
    return telling


def hash_of(courses: np.ndarray) -> np.ndarray:
    """uint64 (n, WORDS): hashes of courses (n, N-1, 4).

    Signs of random projections (Charikar 2002): two courses at an angle a, whose cosine is their correlation, have
    equal bits with probability 1 - a / pi: 0.85 at a correlation of 0.89. The projections are drawn with a fixed seed.
    """
    flat = courses.reshape(len(courses), 4 * courses.shape[1]).astype(np.float32)
    planes = np.random.default_rng(0).normal(size=(flat.shape[1], 64 * WORDS)).astype(np.float32)
    return np.packbits(flat @ planes > 0, axis=1).view(np.uint64)
