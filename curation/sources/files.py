"""Looking at the files of a source: what is there, what stamp it bears, what is wrong with it.

Names come from directories and indexes, which are untrusted: no file is offered that lies outside the folder it is
looked up in, and nothing is read that is larger than a limit.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from curation.errors import ConfigError
from stages.clip import Kind, escape_path

VIDEO_EXTENSIONS = frozenset({"mp4", "m4v", "mov", "mkv", "webm", "avi"})
IMAGE_EXTENSIONS = frozenset({"png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff"})
MISSING = "missing_file: the index names it, the folder does not hold it"
LEADS_OUT = "link leads out of the source's root"
MAX_NAME_BYTES = 255
MAX_FRAMES = 1 << 20


class Look(NamedTuple):
    """What stands at a path: its content stamp, and why it cannot be offered, or None."""

    stamp: str
    problem: str | None = None


def look(path: bytes, inside: bytes, kind: Kind) -> Look:
    """The file at `path` in a folder that lies in `inside` (a real path); a link must not lead out of it."""
    try:
        info = os.stat(path)  # noqa: PTH116 (Path takes no bytes)
    except FileNotFoundError:
        if os.path.islink(path):  # noqa: PTH114
            return Look("", f"broken link to {escape_path(os.readlink(path))}")  # noqa: PTH115
        return Look("", MISSING)
    except OSError as error:
        return Look("", f"cannot be read: {error.strerror}")
    stamp = f"{info.st_size}-{info.st_mtime_ns}"
    if os.path.islink(path) and leads_out(path, inside):  # noqa: PTH114
        return Look(stamp, LEADS_OUT)
    if stat.S_ISDIR(info.st_mode):
        return Look("", f"is a directory, not {'an' if kind == 'image' else 'a'} {kind} file")
    if not stat.S_ISREG(info.st_mode):
        return Look("", f"is {_special(info.st_mode)}, not a regular file")
    return Look(stamp)


def look_at_frames(folder: bytes, inside: bytes) -> Look:
    """A folder of frames: its stamp covers the number of its files, their sizes and the newest change."""
    if leads_out(folder, inside):
        return Look("", LEADS_OUT)
    count, size, newest = 0, 0, 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                count, size, newest = count + 1, size + info.st_size, max(newest, info.st_mtime_ns)
                if count > MAX_FRAMES:
                    return Look("", f"holds more than {MAX_FRAMES:,} files")
    except OSError as error:
        return Look("", f"folder cannot be listed: {error.strerror}")
    return Look(f"{count}-{size}-{newest}")


def leads_out(path: bytes, inside: bytes) -> bool:
    """Whether the path, its links followed, lies outside the folder `inside` (a real path)."""
    return not os.path.realpath(path).startswith(inside.rstrip(b"/") + b"/")


def is_folder(path: bytes) -> bool:
    return os.path.isdir(path)  # noqa: PTH112


def real_folder(root: str, relative: str = ".") -> bytes:
    """The real path of a folder below a source's root. Raises ConfigError for a link that leads out of the root."""
    base = os.path.realpath(os.fsencode(root))
    found = os.path.realpath(os.path.join(base, os.fsencode(relative)))  # noqa: PTH118
    if found != base and leads_out(found, base):
        raise ConfigError(f"{Path(root) / relative}: {LEADS_OUT}")
    return found


def names(folder: bytes) -> list[bytes]:
    """The names in a folder, sorted by their bytes. Raises OSError."""
    return sorted(os.listdir(folder))  # noqa: PTH208 (Path takes no bytes)


def read(path: bytes, inside: bytes, limit: int) -> bytes | None:
    """The contents of a small regular file in a folder (a real path), None where there is none. Raises ValueError with
    what is wrong with it."""
    try:
        if leads_out(path, inside):
            raise ValueError(f"cannot be used: {LEADS_OUT}")
        info = os.stat(path)  # noqa: PTH116
        if not stat.S_ISREG(info.st_mode):
            raise ValueError(f"is {_special(info.st_mode)}, not a regular file")
        if info.st_size > limit:
            raise ValueError(f"has {info.st_size:,} bytes, more than the {limit:,} allowed")
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read(limit)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error


@contextmanager
def open_index(root: str, relative: str) -> Iterator[BinaryIO]:
    """The index file of a source, to be read as a stream. Raises ConfigError."""
    path = Path(root) / relative
    if leads_out(os.fsencode(path), real_folder(root)):
        raise ConfigError(f"{path}: {LEADS_OUT}")
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would block for ever
            raise ConfigError(f"{path}: is not a regular file; expected the source's index")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def safe_name(name: object) -> str | None:
    """What is wrong with a file name that an index gives, or None: it must be one plain part of a path."""
    if not isinstance(name, str) or not name:
        return f"expected a file name, got {short(name)}"
    if name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        return f"expected a plain file name, got {short(name)}"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return f"expected a file name of valid Unicode, got {short(name)}"
    return f"expected a file name of at most {MAX_NAME_BYTES} bytes, got {size}" if size > MAX_NAME_BYTES else None


def short(value: object) -> str:
    """A value of an index as an error text may show it."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def extension(name: bytes) -> str:
    """A file name's extension, lower case, without its dot."""
    return Path(os.fsdecode(name)).suffix.lower().lstrip(".").encode("utf-8", "replace").decode()


def kind_of(name: bytes) -> Kind | None:
    """What a file is by its extension; None for neither video nor image."""
    found = extension(name)
    if found in VIDEO_EXTENSIONS:
        return "video"
    return "image" if found in IMAGE_EXTENSIONS else None


def _special(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return "a directory" if stat.S_ISDIR(mode) else kinds.get(stat.S_IFMT(mode), "a special file")
