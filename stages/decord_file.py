"""Frames through decord, where it is known to give the right ones. Runs in the decoding child.

Decord finds frames by counting. It takes the keyframes' numbers in decoding order for numbers in presentation order,
gives repeated or shifted frames where a packet is damaged, and applies no edit list; so it is asked only where none of
this can matter, and what its FFmpeg complains about meanwhile counts as failure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np

from stages.packet_table import Table
from stages.video_file import VideoFile

# Not MPEG-4 and VP8: packets of theirs may legally give no frame, without a word, and the count is off from there.
CODECS = frozenset({"h264", "hevc", "vp9", "mjpeg"})
MAX_PIXELS = 4096 * 2304  # it queues converted frames: larger ones take too much memory


class DecordError(Exception):
    """Decord cannot decode this file, or not surely right."""


def trusts(file: VideoFile, table: Table) -> bool:
    """Whether decord's counting must give the right frames. It would read a large file whole."""
    context = file.stream.codec_context
    if file.large or not (table.timed and table.clean and table.shown.all() and file.alone and file.codec in CODECS):
        return False
    if context.width * context.height > MAX_PIXELS:
        return False
    # Every keyframe's number in decoding order must be its number in presentation order (closed GOPs).
    rank = np.empty(len(table.pts), np.int64)
    rank[table.order] = np.arange(len(table.order))
    keys = np.flatnonzero(table.key)
    return bool(len(keys)) and keys[0] == 0 and bool((rank[keys] == keys).all())


def decode(path: str, table: Table, chosen: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (position, picture) for each position of `chosen` (ascending), the picture uint8 RGB (h, w, 3), upright.

    Raises DecordError, also after it has yielded: what came before is then in doubt too.
    """
    import decord

    decord.logging.set_level(decord.logging.ERROR)
    noise = os.fstat(2).st_size
    try:
        reader = decord.VideoReader(path, num_threads=1)
        if len(reader) != len(table.pts):
            raise DecordError(f"counts {len(reader)} frames of {len(table.pts)}")
        for position in sorted(set(chosen)):
            yield position, reader[position].asnumpy()
    except (decord.DECORDError, RuntimeError, AssertionError, StopIteration, IndexError) as error:
        raise DecordError(str(error).splitlines()[0]) from error
    if os.fstat(2).st_size > noise:
        raise DecordError("FFmpeg complained while decoding")
