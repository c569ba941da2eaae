"""Who is who: kept clips that show the same face, by their ArcFace embeddings."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from curation.verdicts import Measurements

# Cosine from which on two faces are one person's. Our choice, not calibrated: higher splits people, lower merges them.
SAME_FACE = 0.4


def find_identities(measurements: Measurements) -> None:
    """Make the table `identities` of the kept clips that have a face embedding: clip_id, identity."""
    known = "code = 0 AND face_embedding IS NOT NULL"
    batches = measurements.whole("decided", known, "clip_id, face_embedding", ["face"])
    measurements.add("identities", identities(batches))


def identities(batches: Iterable[pa.RecordBatch], same_face: float = SAME_FACE) -> pa.Table:
    """The clips with their identities: columns clip_id and identity, which is the clip_id of the identity's first clip.

    batches: columns clip_id and face_embedding (unit length), ordered by clip_id, so that the answer depends on nothing
    else. Each clip joins the first-seen face that it is most alike, or begins an identity of its own. Time grows with
    clips times identities, memory with identities (2 kB each).
    """
    clips: list[str] = []
    owners: list[str] = []
    names: list[str] = []
    leaders = np.zeros((0, 0), np.float32)
    for batch in batches:
        vectors = np.stack(batch["face_embedding"].to_pylist()).astype(np.float32)
        if not len(names):
            leaders = np.zeros((1024, vectors.shape[1]), np.float32)
        known = vectors @ leaders[: len(names)].T
        old = len(names)
        for i, clip in enumerate(batch["clip_id"].to_pylist()):
            likeness = np.concatenate([known[i], leaders[old : len(names)] @ vectors[i]])
            if len(likeness) and likeness.max() >= same_face:
                owner = names[int(likeness.argmax())]
            else:
                owner = clip
                if len(names) == len(leaders):
                    leaders = np.concatenate([leaders, np.zeros_like(leaders)])
                leaders[len(names)] = vectors[i]
                names.append(clip)
            clips.append(clip)
            owners.append(owner)
    return pa.table({"clip_id": pa.array(clips, pa.string()), "identity": pa.array(owners, pa.string())})
