"""A folder of a source, on this machine or at a URI, in which the names of its index are looked up."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from typing import BinaryIO, TypeVar

from curation.errors import ConfigError
from curation.sources import files
from curation.sources.files import LEADS_OUT, MAX_FRAMES, MISSING, VIDEO_EXTENSIONS, Look
from manifests.storage import Entry, Remote, is_uri
from stages.clip import Kind
from stages.staging import frames_entry

T = TypeVar("T")
R = TypeVar("R")

MAX_INDEX_BYTES = 1 << 33
AT_ONCE = 16  # questions to a storage


class LocalFolder:
    """A folder on this machine. Names are as `os.fsdecode` gives them."""

    def __init__(self, root: str, relative: str) -> None:
        self._path = files.real_folder(root, relative)

    def look(self, name: str, kind: Kind) -> Look:
        """The file of this name."""
        return files.look(self._at(name), self._path, kind)

    def frames(self, *parts: str) -> Look | None:
        """The folder of frames at this path; None where there is no folder."""
        path = self._at(*parts)
        if not files.is_folder(path):
            return None
        return Look("", LEADS_OUT) if files.leads_out(path, self._path) else files.look_at_frames(path, self._path)

    def read(self, name: str, limit: int) -> bytes | None:
        """A small file, None where there is none. Raises ValueError with what is wrong with it."""
        return files.read(self._at(name), self._path, limit)

    def names(self) -> list[str]:
        """All names, sorted by their bytes. Raises OSError."""
        return [os.fsdecode(name) for name in files.names(self._path)]

    def _at(self, *parts: str) -> bytes:
        return os.path.join(self._path, *map(os.fsencode, parts))  # noqa: PTH118


class RemoteFolder:
    """A folder at a URI. It is listed once, at the first question: to ask for each file would take hours."""

    def __init__(self, root: str, relative: str) -> None:
        self._remote = Remote(root) / relative

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        try:
            return {entry.name: entry for entry in self._remote.entries()}
        except FileNotFoundError:
            return {}

    def look(self, name: str, kind: Kind) -> Look:
        """The object of this name. Raises OSError where the folder cannot be listed."""
        entry = self._entries.get(name)
        if entry is None:
            return Look("", MISSING)
        if entry.is_folder:
            return Look("", f"is a directory, not {'an' if kind == 'image' else 'a'} {kind} file")
        return Look(entry.stamp)

    def frames(self, *parts: str) -> Look | None:
        """The folder of frames at this path; None where there is no folder. Raises OSError."""
        first = self._entries.get(parts[0])
        if first is None or not first.is_folder:
            return None
        folder = self._remote
        for part in parts:
            folder = folder / part
        try:
            count, entry = frames_entry(folder)
        except FileNotFoundError:
            return None
        return Look(entry.stamp) if count <= MAX_FRAMES else Look("", f"holds more than {MAX_FRAMES:,} files")

    def read(self, name: str, limit: int) -> bytes | None:
        """A small object, None where there is none. Raises ValueError with what is wrong with it."""
        entry = self._entries.get(name)
        if entry is None or entry.is_folder:
            return None
        if entry.size > limit:
            raise ValueError(f"has {entry.size:,} bytes, more than the {limit:,} allowed")
        try:
            return (self._remote / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}") from error

    def names(self) -> list[str]:
        """All names, sorted by their bytes. Raises OSError."""
        return list(self._entries)


Folder = LocalFolder | RemoteFolder


def folder_of(root: str, relative: str) -> Folder:
    """The folder `relative` below a source's root."""
    return RemoteFolder(root, relative) if is_uri(root) else LocalFolder(root, relative)


def find_video(folder: Folder, stem: str) -> tuple[str, Look]:
    """Name and look of the video of this stem, whatever its extension; the .mp4 where there is none."""
    for extension in ("mp4", *sorted(VIDEO_EXTENSIONS - {"mp4"})):
        seen = folder.look(f"{stem}.{extension}", "video")
        if seen.problem != MISSING:
            return f"{stem}.{extension}", seen
    return f"{stem}.mp4", Look("", MISSING)


@contextmanager
def open_index(root: str, relative: str) -> Iterator[BinaryIO]:
    """The index file of a source, to be read as a stream; of one at a URI, a copy. Raises ConfigError."""
    if not is_uri(root):
        with files.open_index(root, relative) as file:
            yield file
        return
    remote = Remote(root) / relative
    with tempfile.TemporaryFile() as copy:
        try:
            if (size := remote.info().size) > MAX_INDEX_BYTES:
                raise ConfigError(f"{remote}: has {size:,} bytes, more than the {MAX_INDEX_BYTES:,} allowed")
            remote.download(copy)
        except OSError as error:
            raise ConfigError(f"{remote}: cannot be read: {error.strerror}") from None
        copy.seek(0)
        yield copy


def each(root: str, make: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`make` of each item, in order; at a URI several at once, for each may wait for the storage."""
    if not is_uri(root):
        yield from map(make, items)
        return
    left = iter(items)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while some := list(islice(left, 16 * AT_ONCE)):
            yield from pool.map(make, some)
