"""Which clips must not come back: hashes of the ids of forgotten clips, which tell nobody who or what they were."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator

from manifests.shards import whole
from manifests.storage import Place
from stages.clip import Clip

FORGOTTEN = "measurements/forgotten.txt"


def digest(clip_id: str) -> str:
    """SHA-256 of a clip's id, hex."""
    return hashlib.sha256(clip_id.encode()).hexdigest()


def read_forgotten(output: Place) -> frozenset[str]:
    """The digests of the clips that were forgotten in this output folder."""
    path = output / FORGOTTEN
    return frozenset(path.read_text().split()) if path.exists() else frozenset()


def add_forgotten(output: Place, clip_ids: Iterable[str]) -> None:
    """Add clips to those that must not come back."""
    with whole(output / FORGOTTEN) as temporary:
        temporary.write_text("\n".join(sorted(read_forgotten(output) | set(map(digest, clip_ids)))) + "\n")


def without_forgotten(clips: Iterable[Clip], output: Place, ignored: Counter[str]) -> Iterator[Clip]:
    """The clips but those that were forgotten, which `ignored` counts."""
    forgotten = read_forgotten(output)
    for clip in clips:
        if forgotten and digest(clip.clip_id) in forgotten:
            ignored["(forgotten)"] += 1
        else:
            yield clip
