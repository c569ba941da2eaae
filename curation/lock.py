"""One run at a time on an output folder: the lock that a run holds there, on this machine's disk or at a URI.

The lock is a small JSON file that says who holds it and when it was last alive. It is taken, renewed and left by
compare-and-swap: under flock on disk, by conditional puts on S3. A holder on this very machine is stale when its
process is gone; one on another when it has been silent for STALE_S by its clock and stays so while it is watched.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import getpass
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from curation.errors import Stopped
from curation.names import LOCK
from manifests.shards import remove_unfinished
from manifests.storage import Place, Remote, patient

BEAT_S = 10.0
STALE_S = 60.0
SETTLE_S = 1.0  # how long another's write may take to show where puts know no conditions

_NO_FLOCK = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})


@dataclass(frozen=True)
class Holder:
    """Who holds the lock. machine: boot and process namespace that `pid` is a number of. began: the process's start in
    ticks since boot. since, alive: seconds since 1970."""

    command: str
    user: str
    host: str
    machine: str
    pid: int
    began: int
    since: float
    alive: float
    token: str

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"{self.command} of {self.user} on {self.host}, process {self.pid}, since {since}"


def this_process(command: str) -> Holder:
    """This process as a holder."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"uid {os.getuid()}"
    now = time.time()
    pid = os.getpid()
    return Holder(command, user, socket.gethostname(), _machine(), pid, _began(pid) or 0, now, now, uuid.uuid4().hex)


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _began(pid: int) -> int | None:
    """When the process began, in ticks since boot; None where there is none (a zombie is none)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


class _Disk:
    """The lock as a file. Its version is its content."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[bytes, Any]:
        with self._opened() as file:
            content = file.read()
        return content, content

    def swap(self, version: Any, content: bytes) -> Any:
        with self._opened() as file:
            if file.read() != version:
                return None
            if not content:
                self._path.unlink()
                return b""
            file.seek(0)
            file.write(content)  # over what was there: a full disk has room for that
            file.truncate()
            file.flush()
            return content

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """The file, held so that no other process looks at it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX)
                except OSError as error:
                    if error.errno not in _NO_FLOCK:  # a shared file system without it: whoever writes last has it
                        raise
                if os.fstat(file.fileno()).st_nlink:  # else its holder has just removed it
                    yield file
                    return


class _Object:
    """The lock as an object. Its version is its stamp; on S3, its ETag."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._is_s3 = "s3" in remote.uri.partition("://")[0]

    def read(self) -> tuple[bytes, Any]:
        with contextlib.suppress(FileNotFoundError):
            # In this order: when it changes in between, the version is out of date and the swap fails.
            version = self._tag()
            return self._remote.read_bytes(), version
        return b"", None

    def swap(self, version: Any, content: bytes) -> Any:
        if not content:
            if version is not None and self._tag() == version:
                self._remote.unlink(missing_ok=True)
            return None
        if self._is_s3:
            with contextlib.suppress(_NoConditionsError):
                return self._put(content, {"IfNoneMatch": "*"} if version is None else {"IfMatch": version})
        with contextlib.suppress(FileNotFoundError):
            if self._tag() != version:
                return None
        patient(self._remote.uri, lambda: self._remote.filesystem.pipe_file(self._remote.path, content))
        time.sleep(SETTLE_S)
        return self._tag() if self._remote.read_bytes() == content else None

    def _tag(self) -> Any:
        if self._is_s3:
            return patient(self._remote.uri, lambda: self._remote.filesystem.info(self._remote.path))["ETag"]
        return self._remote.info().stamp

    def _put(self, content: bytes, condition: dict[str, str]) -> Any:
        filesystem = self._remote.filesystem
        bucket, _, key = self._remote.path.partition("/")

        def put() -> Any:
            return filesystem.call_s3("put_object", Bucket=bucket, Key=key, Body=content, **condition)

        try:
            return patient(self._remote.uri, put)["ETag"]
        except OSError as error:
            code = _s3_code(error)
            if code in ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"):
                return None
            if code == "NotImplemented":
                raise _NoConditionsError from error
            raise


class _NoConditionsError(Exception):
    """The S3 server knows no conditional puts."""


def _s3_code(error: BaseException | None) -> str:
    """The code of the S3 error behind an exception."""
    while error is not None:
        if isinstance(response := getattr(error, "response", None), dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""


class Lock:
    """A lock that is held; `locked` gives it."""

    def __init__(self, output: Place, store: _Disk | _Object, holder: Holder, version: Any) -> None:
        self._output = output
        self._store = store
        self._holder = holder
        self._version = version
        self._lost_to: str | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise Stopped when another took the lock because this process was silent for too long."""
        if self._lost_to is not None:
            raise Stopped(f"{self._output} was taken over by {self._lost_to}, while this process was silent")

    def release(self) -> None:
        """Leave the lock to others."""
        self._ended.set()
        self._thread.join()
        if self._lost_to is None:
            with contextlib.suppress(OSError):  # it goes stale instead
                self._store.swap(self._version, b"")

    def _keep_alive(self) -> None:
        while not self._ended.wait(BEAT_S):
            alive = dataclasses.replace(self._holder, alive=time.time())
            try:
                version = self._store.swap(self._version, _encode(alive))
                if version is None:
                    content, version = self._store.read()
                    found = _decode(content)
                    if found is None or found.token != self._holder.token:
                        self._lost_to = str(found or "somebody who removed its lock")
                        return
                self._version = version
            except OSError:
                continue  # the storage does not answer; it is asked again at the next beat


def _encode(holder: Holder) -> bytes:
    return json.dumps(dataclasses.asdict(holder), indent=1).encode()


def _decode(content: bytes) -> Holder | None:
    """The holder; None for an empty file, and for one that is no lock."""
    try:
        return Holder(**json.loads(content)) if content else None
    except (ValueError, TypeError):
        return None


def acquire(output: Place, command: str) -> Lock:
    """Take the lock of an output folder. Raises Stopped, with one line that names the holder, when it is in use."""
    path = output / LOCK
    store = _Object(path) if isinstance(path, Remote) else _Disk(path)
    mine = this_process(command)
    while True:
        content, version = store.read()
        holder = _decode(content)
        if holder is not None and holder.token == mine.token:  # a put whose answer was lost
            return Lock(output, store, mine, version)
        if holder is not None and not _is_stale(store, holder, content):
            silent = time.time() - holder.alive
            doubt = "" if silent < 2 * BEAT_S else f"; silent for {silent:.0f} s, it counts as dead after {STALE_S:g} s"
            raise Stopped(f"{output} is in use by {holder}{doubt}; wait until it ends, or choose another output")
        version = store.swap(version, _encode(mine))
        if version is not None:
            if holder is not None:
                print(f"{output}: took over from {holder}, which is dead", file=sys.stderr)
            return Lock(output, store, mine, version)


def _is_stale(store: _Disk | _Object, holder: Holder, content: bytes) -> bool:
    if holder.machine == _machine():
        return _began(holder.pid) != holder.began
    if time.time() - holder.alive < STALE_S:
        return False
    time.sleep(2.5 * BEAT_S)  # two machines' clocks may differ: see whether it beats
    return store.read()[0] == content


@contextmanager
def locked(output: Place, command: str) -> Iterator[Lock]:
    """Hold the output folder's lock, and begin with removing what a killed run left half written there."""
    lock = acquire(output, command)
    try:
        remove_unfinished(output)
        yield lock
    finally:
        lock.release()
