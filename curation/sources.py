"""What the sources hold: every clip, and what is wrong with those that cannot be opened.

Listing reads no file's contents. Nothing is dropped in silence: a file with a video's or an image's extension becomes a
clip even if it is broken, and files with other extensions are counted.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from curation.config import FolderSource
from stages.clip import Clip, Kind, escape_path

VIDEO_EXTENSIONS = frozenset({"mp4", "m4v", "mov", "mkv", "webm", "avi"})
IMAGE_EXTENSIONS = frozenset({"png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff"})


def list_clips(sources: Sequence[FolderSource], limit: int | None, ignored: Counter[str]) -> Iterator[Clip]:
    """The clips of all sources, the first `limit` of them; see `list_folder`."""
    return itertools.islice(itertools.chain.from_iterable(list_folder(source, ignored) for source in sources), limit)


def list_folder(source: FolderSource, ignored: Counter[str]) -> Iterator[Clip]:
    """The clips of a folder source, in the order of their paths' bytes.

    `ignored` counts, per extension, the files that are neither videos nor images. A directory, a special file, a broken
    link, or a link that leads out of the root becomes a clip with a `problem`. Links to directories are not followed.
    """
    root = os.path.realpath(os.fsencode(source.root))
    yield from _walk(source, root, root, ignored)


def _walk(source: FolderSource, root: bytes, folder: bytes, ignored: Counter[str]) -> Iterator[Clip]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        yield _clip(source, root, folder, "video", "", f"folder cannot be listed: {error.strerror}")
        return
    for entry in entries:
        kind = _kind(entry.name)
        is_folder = entry.is_dir(follow_symlinks=False)
        if kind is not None:
            yield _look(source, root, entry, kind)
        elif entry.is_symlink() and entry.is_dir():
            ignored["(link to a folder)"] += 1
        elif not is_folder:
            ignored[_extension(entry.name) or "(none)"] += 1
        if is_folder:
            yield from _walk(source, root, entry.path, ignored)


def _look(source: FolderSource, root: bytes, entry: os.DirEntry[bytes], kind: Kind) -> Clip:
    """The clip of one directory entry: its stamp, or why it cannot be offered."""

    def clip(stamp: str, problem: str | None = None) -> Clip:
        return _clip(source, root, entry.path, kind, stamp, problem)

    try:
        info = entry.stat()
    except FileNotFoundError:
        target = os.readlink(entry.path) if entry.is_symlink() else None  # noqa: PTH115 (Path takes no bytes)
        return clip("", f"broken link to {escape_path(target)}" if target else "vanished while it was listed")
    except OSError as error:
        return clip("", f"cannot be read: {error.strerror}")
    stamp = f"{info.st_size}-{info.st_mtime_ns}"
    if entry.is_symlink() and not os.path.realpath(entry.path).startswith(root.rstrip(b"/") + b"/"):
        return clip(stamp, "link leads out of the source's root")
    if stat.S_ISDIR(info.st_mode):
        return clip("", f"is a directory, not {'an' if kind == 'image' else 'a'} {kind} file")
    if not stat.S_ISREG(info.st_mode):
        return clip("", f"is {_special(info.st_mode)}, not a regular file")
    return clip(stamp)


def _clip(source: FolderSource, root: bytes, path: bytes, kind: Kind, stamp: str, problem: str | None) -> Clip:
    relative = escape_path(os.path.relpath(path, root))
    return Clip(source=source.name, path=relative, kind=kind, stamp=stamp, problem=problem)


def _special(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(mode), "a special file")


def _extension(name: bytes) -> str:
    return Path(os.fsdecode(name)).suffix.lower().lstrip(".").encode("utf-8", "replace").decode()


def _kind(name: bytes) -> Kind | None:
    extension = _extension(name)
    if extension in VIDEO_EXTENSIONS:
        return "video"
    return "image" if extension in IMAGE_EXTENSIONS else None
