"""Files at URIs, copied to this machine before they are decoded: a bounded cache that its processes share.

A file is kept under a hash of its URI and content stamp, so a changed object is another file. Files in use are locked
(flock, which ends with the process) and stay; of the others the least recently used go when room is needed. A file gets
its name when it is whole; what a killed process left half is seen by its lock being free, and removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import tempfile
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

from manifests.storage import Entry, Remote, is_transient, is_uri
from stages.base import ClipError
from stages.clip import Clip

WAIT_S = 600.0  # for room, while the files of others are in use
PART = ".part"
AT_ONCE = 16  # frames of a folder that are fetched, and held, at a time
CHANGED = "has changed since it was listed; the next run measures it anew"


def default_folder() -> Path:
    """The user's cache in the system's temporary folder."""
    return Path(tempfile.gettempdir()) / f"human-motion-{os.getuid()}"


def own_folder(folder: Path) -> Path:
    """The folder, made for this user alone where it is not there. Raises PermissionError when it is another user's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "belongs to another user; set storage.cache", str(folder))
    return folder


def frames_entry(folder: Remote) -> tuple[int, Entry]:
    """How many files a folder of frames at a URI holds, and the folder as one file. Raises OSError."""
    found = Packed(folder)
    entry = found.info()
    return len(found.files), entry


class Packed:
    """A folder of frames at a URI as one file: a ZIP file that stores its objects as they are."""

    def __init__(self, folder: Remote) -> None:
        self.uri = folder.uri
        self._folder = folder
        self.files: list[Entry] = []

    def info(self) -> Entry:
        """Size of the ZIP file, and a stamp over those of its objects."""
        self.files = [entry for entry in self._folder.entries() if not entry.is_folder]
        if not self.files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.uri)
        mark = hashlib.blake2b(repr([(e.name, e.stamp) for e in self.files]).encode(), digest_size=8).hexdigest()
        size = sum(entry.size for entry in self.files)
        return Entry(self._folder.name, False, size + _zip_overhead(self.files), f"{len(self.files)}-{size}-{mark}")

    def download(self, to: IO[bytes]) -> None:
        """Write the ZIP file of what `info` found into an open file, in place of what that holds."""
        to.seek(0)
        with zipfile.ZipFile(to, "w") as packed, ThreadPoolExecutor(AT_ONCE) as pool:
            for start in range(0, len(self.files), AT_ONCE):
                some = [entry.name for entry in self.files[start : start + AT_ONCE]]
                for name, content in zip(some, pool.map(self._read, some), strict=True):
                    packed.writestr(zipfile.ZipInfo(name), content)
        to.truncate()

    def _read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()


def _zip_overhead(files: list[Entry]) -> int:
    """Bytes of a ZIP file of these files beside their contents: two headers each, and the end of its directory."""
    return sum(30 + 46 + 2 * len(entry.name.encode()) for entry in files) + 22


class Cache:
    """Copies of objects under `folder`, at most `limit` bytes together. Safe with any number of processes on it."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    @contextmanager
    def file(self, location: str, stamp: str | None = None, folder: bool = False) -> Iterator[str]:
        """A path at which the file at `location`, a path or URI, can be read while the block runs.

        stamp: the content stamp that the object must still have. folder: whether it is a folder of frames, which is a
        ZIP file of them then (`stages.frame_folder` reads both). Raises ClipError: the object is gone or not readable,
        has changed, is larger than the cache, or its storage fails even when asked again (transient).
        """
        if not is_uri(location):
            yield location
            return
        try:
            held = self._hold(Packed(Remote(location)) if folder else Remote(location), stamp)
        except FileNotFoundError:
            raise ClipError("does not exist") from None
        except PermissionError as error:
            raise ClipError(f"not readable: {error.strerror}") from error
        except OSError as error:
            raise ClipError(f"cannot be fetched: {error.strerror}", transient=is_transient(error)) from error
        with held:
            yield held.name

    def clip(self, clip: Clip, root: str) -> AbstractContextManager[str]:
        """The same for a clip's file, or folder of frames, of a source whose root is given."""
        folder = clip.folder_fps is not None  # its stamp ends with the frame rate
        stamp = clip.stamp.rpartition("-")[0] if folder else clip.stamp
        return self.file(clip.location(root), stamp or None, folder)

    def _hold(self, remote: Remote | Packed, stamp: str | None) -> IO[bytes]:
        """The file of the object, open and locked against removal."""
        info = remote.info()
        if stamp is not None and info.stamp != stamp:
            raise ClipError(CHANGED, transient=True)
        own_folder(self.folder)
        path = self.folder / hashlib.blake2b(f"{remote.uri}\n{info.stamp}".encode(), digest_size=16).hexdigest()
        while True:
            with contextlib.suppress(FileNotFoundError):
                held = path.open("rb")
                fcntl.flock(held, fcntl.LOCK_SH)
                if os.fstat(held.fileno()).st_nlink:  # else it was removed in between
                    os.utime(held.fileno())
                    return held
                held.close()
            self._fetch(remote, path, info)

    def _fetch(self, remote: Remote | Packed, path: Path, info: Entry) -> None:
        """Bring the object to `path`, unless another process just does or did: then wait for it."""
        part = path.with_name(path.name + PART)
        with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as target:
            fcntl.flock(target, fcntl.LOCK_EX)
            if path.exists() or not os.fstat(target.fileno()).st_nlink:
                return
            try:
                target.truncate(0)  # what a killed process left here
                self._reserve(target, info.size)
                remote.download(target)
                target.flush()
                if remote.info().stamp != info.stamp or os.fstat(target.fileno()).st_size != info.size:
                    raise ClipError(CHANGED, transient=True)
                part.rename(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise

    def _reserve(self, target: IO[bytes], size: int) -> None:
        """Make room and take it, so that the room counts as taken while the object is on its way."""
        if size > self.limit:
            raise ClipError(
                f"has {size / 2**30:.2f} GiB, and the cache is {self.limit / 2**30:.2f} GiB; raise storage.cache_gib"
            )
        until = time.monotonic() + WAIT_S
        while True:
            with (self.folder / ".lock").open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if self._make_room(size):
                    if size:
                        os.posix_fallocate(target.fileno(), 0, size)
                    return
            if time.monotonic() > until:
                raise ClipError("no room in the cache: all of it is in use; raise storage.cache_gib", transient=True)
            time.sleep(0.1)

    def _make_room(self, size: int) -> bool:
        """Remove the least recently used files that nobody holds, until `size` bytes fit; whether they do."""
        files = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False) and entry.name != ".lock":
                        info = entry.stat()
                        files.append((info.st_mtime_ns, info.st_size, Path(entry.path)))
        taken = sum(bytes_ for _, bytes_, _ in files)
        for _, bytes_, path in sorted(files):
            half = path.name.endswith(PART)
            if (taken + size > self.limit or half) and _remove_unused(path):
                taken -= bytes_
        return taken + size <= self.limit


def _remove_unused(path: Path) -> bool:
    """Remove a file unless a process holds it; whether it is gone."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        pass
    return True
