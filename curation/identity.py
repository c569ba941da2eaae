"""Who is who: kept clips that show the same face, by their ArcFace embeddings."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from curation.verdicts import Measurements

# Cosine from which on two faces are one person's. Our choice, not calibrated: higher splits people, lower merges them.
SAME_FACE = 0.4

BLOCK = 8192  # identities compared at once: 32 MB of cosines


def find_identities(measurements: Measurements) -> None:
    """Make the table `identities` of the kept clips that have a face embedding: clip_id, identity."""
    known = "code = 0 AND face_embedding IS NOT NULL"
    batches = measurements.whole("decided", known, "clip_id, face_embedding", ["face"])
    measurements.add("identities", identities(batches))


def identities(batches: Iterable[pa.RecordBatch], same_face: float = SAME_FACE) -> pa.Table:
    """The clips with their identities: columns clip_id and identity, which is the clip_id of the identity's first clip.

    batches: columns clip_id and face_embedding (unit length), ordered by clip_id, so that the answer depends on nothing
    else. Each clip joins the first-seen face that it is most alike, or begins an identity of its own. Time grows with
    clips times identities, as products of matrices; memory with identities (2 kB each).
    """
    ids: list[pa.Array] = []
    owners: list[np.ndarray] = []
    first: list[int] = []  # of each identity, the place of its first clip
    leaders = np.zeros((0, 0), np.float32)
    count = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        flat = batch["face_embedding"].flatten().to_numpy(zero_copy_only=False)
        vectors = flat.astype(np.float32).reshape(batch.num_rows, -1)
        likeness, owner = _most_alike(vectors, leaders[: len(first)])
        fresh: list[int] = []  # rows of this batch that begin an identity
        unlike = np.flatnonzero(likeness < same_face)
        among = vectors[unlike] @ vectors[unlike].T
        nearest = np.full(len(unlike), -np.inf, np.float32)  # of those that have begun one
        for place, row in enumerate(unlike.tolist()):
            if nearest[place] < same_face:
                fresh.append(row)
                np.maximum(nearest, among[place], out=nearest)
        if fresh:
            # Later rows may be more alike one of these than all that were known before.
            new = vectors @ vectors[fresh].T
            new[np.arange(len(vectors))[:, None] <= np.array(fresh)] = -np.inf
            best = new.max(axis=1)
            owner = np.where(best > likeness, len(first) + new.argmax(axis=1), owner)
            owner[fresh] = len(first) + np.arange(len(fresh))
            if len(first) + len(fresh) > len(leaders):
                larger = np.zeros((2 * (len(first) + len(fresh)), vectors.shape[1]), np.float32)
                larger[: len(first)] = leaders[: len(first)] if len(first) else 0
                leaders = larger
            leaders[len(first) : len(first) + len(fresh)] = vectors[fresh]
            first += [count + row for row in fresh]
        ids.append(batch["clip_id"].take(np.arange(len(vectors))))  # a copy: a column keeps its whole batch in memory
        owners.append(owner)
        count += len(vectors)
    if not ids:
        return pa.table({"clip_id": pa.array([], pa.string()), "identity": pa.array([], pa.string())})
    clips = pa.concat_arrays(ids)
    named = np.array(first)[np.concatenate(owners)]
    return pa.table({"clip_id": clips, "identity": clips.take(pa.array(named))})


def _most_alike(vectors: np.ndarray, leaders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 (n,), int64 (n,): of each vector (n, d), the largest cosine with a leader (k, d), and the first such;
    -inf and 0 where there are none."""
    best, place = np.full(len(vectors), -np.inf, np.float32), np.zeros(len(vectors), np.int64)
    for start in range(0, len(leaders), BLOCK):
        known = vectors @ leaders[start : start + BLOCK].T
        index = known.argmax(axis=1)
        value = known[np.arange(len(vectors)), index]
        better = value > best
        best[better], place[better] = value[better], start + index[better]
    return best, place
