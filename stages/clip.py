"""The clip: the unit of curation, its stable id, and file names that are not UTF-8."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["video", "image"]

_HEX_AFTER_PERCENT = re.compile(rb"%(?=[0-9A-Fa-f]{2})")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


def escape_path(raw: bytes) -> str:
    """A file name as text. UTF-8 names stay as they are, but for a percent sign that would read as an escape; other
    bytes become %XX. `unescape_path` gives the exact bytes back."""
    raw = _HEX_AFTER_PERCENT.sub(b"%25", raw)
    return "".join(
        f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in raw.decode("utf-8", "surrogateescape")
    )


def unescape_path(path: str) -> bytes:
    """The bytes of the file name that `escape_path` was given."""
    return _ESCAPE.sub(lambda m: bytes([int(m[1], 16)]), path.encode())


@dataclass(frozen=True)
class Entry:
    """What a source's index says of a clip; it is kept for the reader of the manifest and not applied.

    video_id: the video the clip was cut from, as the index names it. span: seconds (start, end) in that video. box:
    x0, y0, x1, y1 as fractions of its picture. texts: the source's own descriptions, by column.
    """

    video_id: str | None = None
    span: tuple[float, float] | None = None
    box: tuple[float, float, float, float] | None = None
    texts: Mapping[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Clip:
    """A span of one video, or one still image, of one source.

    path: relative to the source's root, escaped (`escape_path`), "/" between its parts.
    span: seconds (start, end) of the file that are the clip, or None for the whole file.
    box: what is cut out of every picture first (x0, y0, x1, y1 as fractions of it), or None.
    stamp: content stamp, size and modification time or ETag; a changed file is measured anew.
    problem: why the source could not offer the file at all (a broken link, say), or None.
    folder_fps: frame rate of a clip that is a folder of frames, None for a file.
    entry: what the source's index says of the clip; no part of its identity, and not passed on to workers.
    """

    source: str
    path: str
    kind: Kind
    stamp: str
    span: tuple[float, float] | None = None
    box: tuple[float, float, float, float] | None = None
    problem: str | None = None
    folder_fps: float | None = None
    entry: Entry = Entry()

    @property
    def clip_id(self) -> str:
        """128-bit hash, hex: the same on every machine and wherever the source's root lies."""
        key = json.dumps([self.source, self.path, self.span, self.box], ensure_ascii=True)
        return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()

    def location(self, root: str) -> str:
        """The file's path under `root`, as the operating system's own calls take it."""
        return f"{root.rstrip('/')}/{os.fsdecode(unescape_path(self.path))}"  # never an absolute path of its own
