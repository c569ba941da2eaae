"""A folder of numbered pictures as a video: frame k is shown at k / fps. Runs in the decoding child.

A folder that lay at a URI comes as a ZIP file that stores its pictures as they are (`stages.staging`).
"""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any

import numpy as np

from stages.picture import MediaError
from stages.still_image import image_header, read_picture

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
MAX_FRAMES = 1 << 20


class FrameFolder:
    """One folder. Its pictures are ordered by the number that their names end in; other files are passed over."""

    def __init__(self, path: str, fps: float) -> None:
        self.path = path
        self.fps = fps
        self._packed = None if os.path.isdir(path) else _packed(path)  # noqa: PTH112
        self.names = self._ordered()

    def _ordered(self) -> list[str]:
        numbered: list[tuple[int, str]] = []
        with os.scandir(self.path) if self._packed is None else nullcontext(self._packed.infolist()) as entries:
            for entry in entries:
                found = entry.name if isinstance(entry, os.DirEntry) else entry.filename
                name = Path(found)
                digits = re.search(r"(\d{1,18})$", name.stem)
                if digits and name.suffix.lower() in EXTENSIONS:
                    numbered.append((int(digits[1]), found))
                if len(numbered) > MAX_FRAMES:
                    raise MediaError(f"holds more than {MAX_FRAMES:,} frames")
        if not numbered:
            raise MediaError("holds no numbered frames")
        numbered.sort()
        first = numbered[0][0]
        for expected, (number, found) in enumerate(numbered, start=first):
            if number != expected:
                what = f"frame {expected} is missing" if number > expected else f"{found} has another frame's number"
                raise MediaError(f"{what} in the folder of {len(numbered)} frames")
        return [name for _, name in numbered]

    @property
    def seconds(self) -> np.ndarray:
        """Presentation times of the frames, float64 (n,)."""
        return np.arange(len(self.names)) / self.fps

    def header(self) -> dict[str, Any]:
        """Fields of `stages.decode.Header`, from the first frame."""
        with self._opened(self.names[0]) as first:
            found = image_header(first)
        count = len(self.names)
        return found | {"fps": self.fps, "duration_s": count / self.fps, "frame_count": count}

    def decode(self, chosen: Sequence[int], size: tuple[int, int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (position, picture) for each position of `chosen` (ascending), uint8 RGB (h, w, 3), upright.

        Raises MediaError for a frame that is not `size` = (width, height), or cannot be read.
        """
        for position in sorted(set(chosen)):
            name = self.names[position]
            try:
                with self._opened(name) as path:
                    picture = read_picture(path)
            except (MediaError, OSError, ValueError, SyntaxError) as error:
                raise MediaError(f"frame {name} cannot be decoded: {error}") from error
            if picture.shape[1::-1] != size:
                width, height = picture.shape[1::-1]
                raise MediaError(f"frame {name} is {width}x{height}, the first one {size[0]}x{size[1]}")
            yield position, picture

    def _opened(self, name: str) -> AbstractContextManager[str | IO[bytes]]:
        if self._packed is not None:
            return self._packed.open(name)
        return _Opened(os.path.join(self.path, name))  # noqa: PTH118


def _packed(path: str) -> zipfile.ZipFile:
    try:
        found = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise MediaError("is not a folder of frames") from None
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in found.infolist()):
        raise MediaError("is not a folder of frames")  # nothing of ours: unpacked it might take any size
    return found


class _Opened:
    """A regular file held open, known by its number: a link or a pipe in its place is refused."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> str:
        self._fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise MediaError("is not a regular file")
        return f"/dev/fd/{self._fd}"

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
