"""Which clips are held out for validation: whole videos, by a stable hash, and all videos of one person together.

A video's split depends on its own name alone, so it does not move as data grows. Clips that a source cut from one video
bear its name in the index, and the three sources that were cut from YouTube the same one: all go together. Videos that
share an identity, or hold copies of one clip, form one group, whose split is that of one of them: the first by another
hash of their names. So a group is held out with the same probability whatever its size, and a video that joins a group
of k changes the group's split with probability 2 f (1 - f) / (k + 1) at a held-out share of f.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from curation.verdicts import Measurements

# The video of a clip as a key of 32 hex digits: by the index's name for it, else by its file.
VIDEO = "md5(coalesce(video_id, source || '/' || path))"


def split_videos(measurements: Measurements, val_fraction: float) -> None:
    """Make the table `splits` of all videos: video (see VIDEO), split."""
    copies = (
        f"SELECT {VIDEO} AS video, kept.video AS other FROM decided JOIN "
        f"(SELECT clip_id, {VIDEO} AS video FROM decided WHERE code = 0) kept ON decided.duplicate_of = kept.clip_id"
    )
    measurements.make(
        "links",
        f"SELECT {VIDEO} AS video, identity AS other FROM decided JOIN identities USING (clip_id) "
        f"UNION {copies} UNION SELECT other, video FROM ({copies})",
    )
    links = pa.Table.from_batches(
        measurements.batches("SELECT video, other FROM links", 100_000),
        pa.schema([("video", pa.string()), ("other", pa.string())]),
    )
    measurements.add("clusters", _groups(links))
    measurements.make(
        "splits",
        f"""SELECT video, CASE WHEN CAST('0x' || coalesce(first, video)[:8] AS BIGINT) < {int(val_fraction * 2**32)}
            THEN 'val' ELSE 'train' END AS split
        FROM (SELECT DISTINCT {VIDEO} AS video FROM listing) LEFT JOIN clusters USING (video)
        LEFT JOIN (SELECT member, arg_min(video, video[9:]) AS first FROM clusters GROUP BY member) USING (member)""",
    )


def _groups(links: pa.Table) -> pa.Table:
    """The connected components of the links: video and member, the component that it belongs to.

    links: video, and `other`, an identity or a video, whose names do not clash: a clip_id is no md5 of a path.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names = pa.concat_arrays([links["video"].combine_chunks(), links["other"].combine_chunks()]).dictionary_encode()
    nodes = names.indices.to_numpy()
    count = len(names.dictionary)
    a, b = nodes[: len(links)], nodes[len(links) :]
    _, member = connected_components(coo_array((np.ones(len(a), bool), (a, b)), (count, count)), directed=False)
    videos = np.unique(a)
    return pa.table({"video": names.dictionary.take(pa.array(videos)), "member": member[videos].astype(np.int64)})
