"""Near-duplicate clips: all but the best of each set of copies are rejected, from the measurements alone.

Two clips of a kind are copies when the share of equal bits of their perceptual hashes is above the threshold, also
where one is the mirror image of the other, and when their motion and the embeddings that both have agree. So are two
videos of one face, by its embedding, that moves in one way: hashes of its courses are held to the same threshold
(`curation.courses`). The best of a set has the highest quality, then the larger picture, then the smaller clip_id; it
is kept, and those that are like it (not merely like one that is like it) are rejected.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from curation.courses import course_hashes
from curation.identity import SAME_FACE
from curation.verdicts import Measurements
from stages.hash import MIRROR

# Cosine of CLIP's embeddings of the middle frame below which two clips are no copies, whatever the hash says. Our
# choice, not calibrated; hence no pair is found by a large cosine: other takes before the same ground may have it too.
SAME_PICTURE = 0.9

# The smaller motion intensity over the larger one: below it the same picture moves at another speed, which signs of
# coefficients hardly show. Copies of real clips had 0.84 to 1, and 0.78 where weak motion was encoded at CRF 38.
SAME_MOTION = 0.82

# The same of two courses of one face. Crops leave courses as they are, but not M: real clips that were cropped by 16 %
# of width and height had 0.67 to 0.87, by 25 % 0.52 to 0.79.
SAME_COURSE_MOTION = 0.5

BANDS = 32  # tables of the locality-sensitive hashing
BAND_BITS = 20  # of the hash that a table's key has
LEADERS = 64  # clips of one bucket that all of it is compared with


def duplicates(measurements: Measurements, most: float) -> pa.Table:
    """Which of the kept clips are rejected: columns clip_id, duplicate_of (a clip that stays) and duplicate_similarity.

    most: share of equal bits (0..1) that two kept clips may have; from 1 on nothing is a duplicate.
    """
    if most >= 1:
        return _table(pa.array([], pa.string()), {})
    columns = "clip_id, kind = 'video' AS moving, frame_hash, coalesce(motion_intensity, 0) AS motion"
    measurements.make_whole(
        "hashed",
        "decided",
        "code = 0 AND frame_hash IS NOT NULL",
        f"{columns}, quality_score, short_side",
        ["hash"],
    )
    best_first = "ORDER BY quality_score DESC NULLS LAST, short_side DESC NULLS LAST, clip_id"
    batches = list(
        measurements.batches(f"SELECT clip_id, moving, frame_hash, motion FROM hashed {best_first}", 100_000)
    )
    measurements.rows("DROP TABLE hashed")
    if not batches:
        return _table(pa.array([], pa.string()), {})
    clips = pa.Table.from_batches(batches).combine_chunks()
    ids = clips["clip_id"].combine_chunks()
    hashes = clips["frame_hash"].combine_chunks().flatten().to_numpy().reshape(len(ids), -1)
    motion = clips["motion"].to_numpy()
    by_hash = _as_fast(similar_pairs(hashes, clips["moving"].to_numpy(), most), motion, SAME_MOTION)
    by_course = _as_fast(_same_courses(measurements, ids, most), motion, SAME_COURSE_MOTION)
    better, worse, alike = _joined(by_hash, by_course, len(ids))
    agree = _embeddings_agree(measurements, ids.take(better), ids.take(worse))
    return _table(ids, copies(better[agree], worse[agree], alike[agree]))


Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # as `similar_pairs` gives them


def _same_courses(measurements: Measurements, ids: pa.Array, most: float) -> Pairs:
    """Pairs of rows of `ids` whose faces, which have embeddings, move the same way."""
    rows, hashes = course_hashes(measurements, ids)
    count = len(rows)
    if not count:
        return rows, rows, np.zeros(0)
    a, b, share = similar_pairs(hashes, np.ones(2 * count, bool), most, mirror=np.uint64(0))
    a, b = a % count, b % count  # the mirrored ones stand behind all others
    keep = a != b
    return rows[np.minimum(a, b)[keep]], rows[np.maximum(a, b)[keep]], share[keep]


def _as_fast(pairs: Pairs, motion: np.ndarray, least: float) -> Pairs:
    """Those of the pairs whose smaller motion intensity is at least so large a part of the larger one."""
    better, worse, share = pairs
    one, other = motion[better], motion[worse]
    agree = np.minimum(one, other) >= least * np.maximum(one, other)
    return better[agree], worse[agree], share[agree]


def _joined(one: Pairs, other: Pairs, count: int) -> Pairs:
    """Both, each pair once and as alike as it is by either, in order of the rows. count: of rows."""
    better, worse, share = (np.concatenate(parts) for parts in zip(one, other, strict=True))
    pairs, place = np.unique(better * count + worse, return_inverse=True)
    most = np.zeros(len(pairs))
    np.maximum.at(most, place, share)
    return pairs // count, pairs % count, most


def _embeddings_agree(measurements: Measurements, better: pa.Array, worse: pa.Array) -> np.ndarray:
    """bool (p,): whether neither the pictures' nor the faces' embeddings of the pair speak against it."""
    agree = np.ones(len(better), bool)
    measurements.add("pairs", pa.table({"pair": np.arange(len(better)), "better": better, "worse": worse}))
    measurements.rows(
        "CREATE OR REPLACE VIEW paired AS SELECT clip_id, stamp FROM decided "
        "WHERE clip_id IN (SELECT better FROM pairs UNION ALL SELECT worse FROM pairs)"
    )
    for stage, column, least in (("embedding", "frame_embedding", SAME_PICTURE), ("face", "face_embedding", SAME_FACE)):
        measurements.make_whole("vectors", "paired", f"{column} IS NOT NULL", f"clip_id, {column} AS v", [stage])
        differ = measurements.rows(
            "SELECT pair FROM pairs JOIN vectors a ON a.clip_id = better JOIN vectors b ON b.clip_id = worse "
            f"WHERE list_dot_product(a.v, b.v) < {least}"
        )
        agree[[pair for (pair,) in differ]] = False
    return agree


def similar_pairs(hashes: np.ndarray, kinds: np.ndarray, most: float, mirror: np.uint64 = MIRROR) -> Pairs:
    """Pairs of rows whose hashes, or one's hash and the other's mirrored one, agree in more than `most` of their bits.

    hashes: uint64 (n, words), the best clip first. kinds: bool (n,), only rows of one kind are paired. mirror: the bits
    of each word that a mirrored picture has the other way round. Returns int64 (p,), int64 (p,), float64 (p,): the
    better row, the worse one, the share of equal bits, in order of the rows.

    Locality-sensitive hashing by bit sampling (Indyk and Motwani 1998): each of BANDS tables sorts all clips by
    BAND_BITS bits; equal keys make a bucket, whose LEADERS best are compared with the rest until one is like it. A pair
    that differs in a share p of its bits shares a bucket with probability 1 - (1 - (1 - p)^BAND_BITS)^BANDS, were bits
    independent: 0.9999 at p = 0.05, 0.98 at 0.1, 0.72 at 0.15. Time O(BANDS n (log n + LEADERS)) at most, memory
    O(BANDS n) at most and O(n) where copies are few. Bits are drawn with a fixed seed: the same clips, the same pairs.
    """
    count, words = hashes.shape
    pairs = np.zeros(0, np.int64)
    rng = np.random.default_rng(0)
    for _ in range(BANDS):
        key, turn = kinds.astype(np.int64), 0
        for bit in rng.choice(64 * words, BAND_BITS, replace=False):
            key = key << 1 | (hashes[:, bit // 64] >> np.uint64(bit % 64) & np.uint64(1)).astype(np.int64)
            turn = turn << 1 | int(mirror >> np.uint64(bit % 64) & np.uint64(1))
        # A clip stands in the bucket of the smaller of its own and its mirror image's key, turned that way round: so
        # whatever pair shares a bucket, mirrored or not, is compared once.
        turned = key ^ turn < key
        seen = hashes ^ np.where(turned, mirror, np.uint64(0))[:, None]
        in_order = np.sort(np.minimum(key, key ^ turn) << 32 | np.arange(count))  # by key, then by row
        order = in_order & 0xFFFFFFFF
        starts = np.flatnonzero(np.diff(in_order >> 32, prepend=-1))
        start = np.repeat(starts, np.diff(starts, append=len(order)))
        place = np.arange(len(order)) - start
        todo = np.flatnonzero(place)
        found = [pairs]
        for leader in range(LEADERS):
            todo = todo[place[todo] > leader]
            a, b = order[start[todo] + leader], order[todo]
            hit = _share_equal(seen[a], seen[b]) > most
            found.append(a[hit] * count + b[hit])
            todo = todo[~hit]
            if not len(todo):
                break
        pairs = np.unique(np.concatenate(found))
    better, worse = pairs // count, pairs % count
    share = np.maximum(
        _share_equal(hashes[better], hashes[worse]), _share_equal(hashes[better], hashes[worse] ^ mirror)
    )
    return better, worse, share


def _share_equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float64 (n,): the share of equal bits of two uint64 (n, words), 0..1."""
    return 1 - np.einsum("ij->i", np.bitwise_count(a ^ b), dtype=np.int64) / (64 * a.shape[1])


def copies(better: np.ndarray, worse: np.ndarray, alike: np.ndarray) -> dict[int, tuple[int, float]]:
    """Which rows are rejected: for each, the kept row that it is a copy of, and how alike they are.

    The pairs are in order of their rows. From the best row to the worst, one that is like a kept row is rejected in
    favour of the best such, else it is kept: so no pair has both its rows kept.
    """
    rejected: dict[int, tuple[int, float]] = {}
    for a, b, share in zip(better.tolist(), worse.tolist(), alike.tolist(), strict=True):
        if a not in rejected and b not in rejected:
            rejected[b] = (a, share)
    return rejected


def _table(ids: pa.Array, rejected: dict[int, tuple[int, float]]) -> pa.Table:
    kept = [kept for kept, _ in rejected.values()]
    alike = [share for _, share in rejected.values()]
    return pa.table(
        {
            "clip_id": ids.take(pa.array(list(rejected), pa.int64())),
            "duplicate_of": ids.take(pa.array(kept, pa.int64())),
            "duplicate_similarity": pa.array(alike, pa.float64()),
        }
    )
