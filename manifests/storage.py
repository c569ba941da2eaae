"""Places: a folder or file on this machine (`pathlib.Path`) or at a URI (`Remote`), through the same few methods.

    place("runs/a") / "summary.json"          a Path
    place("s3://bucket/a") / "summary.json"   a Remote

A URI may have any scheme that fsspec knows and whose package is installed; credentials come from where that package
looks for them (for S3: environment, ~/.aws, instance role; AWS_ENDPOINT_URL for another server). Only whole objects
are written, so that none is ever seen half. Errors are OSErrors with the URI as their `filename`; what may pass is
tried again with growing pauses first.
"""

from __future__ import annotations

import errno
import fnmatch
import logging
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeVar

T = TypeVar("T")

PAUSES_S = (0.2, 0.4, 0.8, 1.6, 3.2, 6.4)  # between the attempts at what may pass
CONNECT_S, READ_S = 10, 60  # limits of one request to S3
URI = re.compile(r"^[A-Za-z][A-Za-z0-9+.:-]*://")

# These say what is wrong with the object or with us; asking again gives the same answer.
PERMANENT = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
PERMANENT_ERRNO = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT})
# Their own exceptions stand for lost connections, timeouts and half-read bodies.
NETWORK = ("aiohttp", "botocore", "aiobotocore", "urllib3", "requests", "http", "fsspec", "asyncio", "google", "azure")
STAMPS = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "updated", "created")


def is_uri(text: str) -> bool:
    """Whether the text is a URI rather than a local path."""
    return URI.match(text) is not None


def place(where: str | Path | Remote) -> Path | Remote:
    """The place that a path or URI names; "file:///a" is the local "/a". Raises ValueError for a URI that cannot be
    used: an unknown scheme, a package that is not installed, a chain of schemes."""
    if isinstance(where, Path | Remote) or not is_uri(where):
        return Path(where) if isinstance(where, str) else where
    if where.startswith(("file://", "local://")):
        return Path("/" + where.split("://", 1)[1].lstrip("/"))
    remote = Remote(where)
    _ = remote.filesystem
    return remote


@dataclass(frozen=True)
class Entry:
    """What a folder holds. size: bytes. stamp: changes with the content; both empty for folders."""

    name: str
    is_folder: bool
    size: int
    stamp: str


@dataclass(frozen=True, order=True)
class Remote:
    """A place at a URI. Folders need not be made: they are there as soon as something is in them."""

    uri: str

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, part: str | Path) -> Remote:
        return Remote(f"{self.uri.rstrip('/')}/{part}")

    @property
    def name(self) -> str:
        return self.uri.rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> Remote:
        return Remote(self.uri.rstrip("/").rpartition("/")[0])

    @cached_property
    def filesystem(self) -> Any:
        """The fsspec file system; fsspec keeps one per process and credentials."""
        import fsspec

        scheme = self.uri.partition("://")[0]
        if "::" in scheme:
            raise ValueError(f"{self.uri}: chained schemes are not supported")
        try:
            kind = fsspec.get_filesystem_class(scheme)
        except ValueError:
            raise ValueError(f"{self.uri}: unknown scheme {scheme}") from None
        except ImportError as error:
            extra = "; pip install 'human-motion[s3]'" if scheme in ("s3", "s3a") else ""
            raise ValueError(f"{self.uri}: {error}{extra}") from None
        options: dict[str, Any] = {"use_listings_cache": False}
        if "s3" in scheme:
            # One attempt a request: `_patient` makes the others.
            config = {"retries": {"total_max_attempts": 1}, "connect_timeout": CONNECT_S, "read_timeout": READ_S}
            options["config_kwargs"] = config
            logging.getLogger("botocore.credentials").setLevel(logging.WARNING)
        found = kind(**kind._get_kwargs_from_urls(self.uri), **options)
        if "s3" in scheme:
            found.retries = 1
        return found

    @cached_property
    def path(self) -> str:
        """The place as its file system names it."""
        return str(self.filesystem._strip_protocol(self.uri))

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}  # each process makes its own connections

    def info(self) -> Entry:
        """What is there. Raises FileNotFoundError."""
        return _entry(self._try(lambda: self.filesystem.info(self.path)))

    def exists(self) -> bool:
        try:
            self.info()
        except FileNotFoundError:
            return False
        return True

    def is_file(self) -> bool:
        try:
            return not self.info().is_folder
        except FileNotFoundError:
            return False

    def is_dir(self) -> bool:
        try:
            return self.info().is_folder
        except FileNotFoundError:
            return False

    def entries(self, unnamed: bool = False) -> list[Entry]:
        """What lies directly in this folder, in the order of the names' bytes. Raises FileNotFoundError.

        unnamed: also the folder without a name, of objects whose keys have two slashes in a row here. No path leads
        into it; `below` tells what it holds.
        """
        found = self._try(lambda: self.filesystem.ls(self.path, detail=True))
        # Some stores list a folder's own marker, an empty object of its name, as its child.
        own = self.path.rstrip("/")
        children = [_entry(info) for info in found if info["name"].rstrip("/") != own]
        if unnamed and any(info["name"] == f"{own}/" and info["type"] == "directory" for info in found):
            children.append(Entry("", True, 0, ""))
        return sorted(children, key=lambda entry: entry.name.encode("utf-8", "surrogatepass"))

    def below(self, name: str) -> list[str]:
        """The objects at any depth of this folder's subfolder of this name, which may be empty, as their keys name them
        below this folder, sorted; none where the store cannot search by how a key begins. Raises OSError."""
        own = self.path.rstrip("/")
        try:
            found = self._try(lambda: self.filesystem.find(self.path, prefix=f"{name}/"))
        except TypeError:
            return []
        return sorted(key[len(own) + 1 :] for key in found if key.startswith(f"{own}/{name}/"))

    def glob(self, pattern: str) -> Iterator[Remote]:
        """The files directly in this folder whose name fits the pattern; none where there is no such folder."""
        try:
            entries = self.entries()
        except FileNotFoundError:
            return
        yield from (self / e.name for e in entries if not e.is_folder and fnmatch.fnmatchcase(e.name, pattern))

    def open(self) -> IO[bytes]:
        """The object's bytes, to be read in ranges. Raises OSError, also while it is read."""
        return self._try(lambda: self.filesystem.open(self.path, "rb"))

    def read_bytes(self) -> bytes:
        return self._try(lambda: self.filesystem.cat_file(self.path))

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def download(self, to: IO[bytes]) -> None:
        """Write the object into an open file, in place of what that holds."""

        def copy() -> None:
            to.seek(0)
            with self.filesystem.open(self.path, "rb", block_size=2**23, cache_type="readahead") as source:
                shutil.copyfileobj(source, to, 2**23)
            to.truncate()

        self._try(copy)

    def upload(self, local: Path) -> None:
        """Put a local file here: whole, in place of what was here."""
        self._try(lambda: self.filesystem.put_file(str(local), self.path))

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self._try(lambda: self.filesystem.rm_file(self.path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def _try(self, call: Callable[[], T]) -> T:
        return patient(self.uri, call)


Place = Path | Remote


def patient(name: str, call: Callable[[], T]) -> T:
    """`call()`, tried again after what may pass. Raises OSError with `name` as its filename."""
    for pause in (*PAUSES_S, None):
        try:
            return call()
        except PERMANENT as error:
            raise type(error)(error.errno or errno.EIO, error.strerror or _text(error), name) from error
        except Exception as error:
            if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in NETWORK:
                raise
            if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"):
                raise PermissionError(errno.EACCES, _text(error), name) from error
            number = (error.errno if isinstance(error, OSError) else None) or errno.EIO
            if pause is None or number in PERMANENT_ERRNO:
                raise OSError(number, _text(error), name) from error
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (spreads the attempts of many workers)
    raise AssertionError


def is_transient(error: OSError) -> bool:
    """Whether what `patient` gave up on may pass later."""
    return not isinstance(error, PERMANENT) and error.errno not in PERMANENT_ERRNO - {errno.ENOSPC, errno.EDQUOT}


def _text(error: BaseException) -> str:
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(said).split())[:300]


def _entry(info: dict[str, Any]) -> Entry:
    name = info["name"].rstrip("/").rpartition("/")[2]
    if info["type"] == "directory":
        return Entry(name, True, 0, "")
    size = int(info["size"] or 0)
    mark = next((str(info[key]) for key in STAMPS if info.get(key)), "")
    return Entry(name, False, size, f"{size}-{mark.strip(chr(34))}")
