"""Measurement files that are not what was written. Each bears the hash of its content in its name:

    OUT/measurements/<stage>/<fingerprint>/<time>-<hash>.parquet

A run sets aside those that were damaged where they lay and measures their clips anew; who only reads refuses them.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from manifests.shards import whole
from manifests.storage import Place

DAMAGED = ".damaged"
_NAME = re.compile(r"\d{20}-([0-9a-f]{32})\.parquet")


def write_measured(folder: Place, moment: str, content: Any) -> None:
    """Write the bytes of a measurement file. moment: 20 digits; of two rows of a clip that of the earlier file wins."""
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    with whole(folder / f"{moment}-{digest}.parquet") as temporary:
        temporary.write_bytes(content)


def is_sound(path: Path) -> bool:
    """Whether a measurement file, or a copy of one, is what was written; True where its name bears no hash."""
    named = _NAME.match(path.name)
    if named is None:
        return True
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    return found.hexdigest() == named[1]


def original_name(path: Path) -> str:
    """The name of a measurement file; copies of objects bear their stamp behind it."""
    return f"{path.name.partition('.parquet')[0]}.parquet"
