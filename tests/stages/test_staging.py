"""The cache of clips that lie at URIs, over a real S3 server: bounded, whole, shared, and never out of date."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from manifests.shards import whole
from manifests.storage import Remote
from stages.base import ClipError
from stages.staging import Cache, own_folder
from tests.faulty_s3 import Fault, FaultyS3

ROOT = Path(__file__).resolve().parent.parent.parent
SIZE = 100_000


def put(remote: Remote, content: bytes) -> Remote:
    with whole(remote) as temporary:
        temporary.write_bytes(content)
    return remote


def kept(cache: Cache) -> int:
    """Bytes that the cache takes; nothing half may lie there."""
    files = [path for path in cache.folder.iterdir() if path.name != ".lock"]
    assert not [path for path in files if path.name.endswith(".part")]
    return sum(path.stat().st_size for path in files)


def test_a_local_file_is_used_where_it_lies(tmp_path: Path) -> None:
    with Cache(tmp_path / "cache", 0).file("/data/a.mp4", "1-1") as path:
        assert path == "/data/a.mp4"
    assert not (tmp_path / "cache").exists()


def test_objects_are_fetched_once_and_the_least_recently_used_go(tmp_path: Path, s3: FaultyS3, bucket: Remote) -> None:
    cache = Cache(tmp_path / "cache", 3 * SIZE)
    content = {name: os.urandom(SIZE) for name in "abcd"}
    for name in "abcd":
        put(bucket / f"{name}.mp4", content[name])

    def fetched(name: str) -> bool:
        before = s3.seen["GET"]
        with cache.file(f"s3://bucket/{name}.mp4") as path:
            assert Path(path).read_bytes() == content[name]
        assert kept(cache) <= 3 * SIZE
        return s3.seen["GET"] > before

    assert [fetched(name) for name in "abcaab"] == [True, True, True, False, False, False]
    assert fetched("d")
    assert [fetched(name) for name in "abd"] == [False, False, False]
    assert fetched("c")


def test_a_changed_object_is_another_file_and_a_stale_listing_is_told(
    tmp_path: Path, s3: FaultyS3, bucket: Remote
) -> None:
    cache = Cache(tmp_path / "cache", 10 * SIZE)
    remote = put(bucket / "a.mp4", b"1" * 10)
    listed = remote.info().stamp
    with cache.file(remote.uri, listed) as path:
        assert Path(path).read_bytes() == b"1" * 10
    put(remote, b"2" * 10)
    with (
        pytest.raises(ClipError, match="has changed since it was listed; the next run measures it anew") as changed,
        cache.file(remote.uri, listed),
    ):
        pass
    assert changed.value.transient
    with cache.file(remote.uri) as path:
        assert Path(path).read_bytes() == b"2" * 10


def test_a_file_in_use_stays_and_what_does_not_fit_is_told(
    tmp_path: Path, s3: FaultyS3, bucket: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.staging.WAIT_S", 0.3)
    cache = Cache(tmp_path / "cache", SIZE)
    for name in "ab":
        put(bucket / f"{name}.mp4", os.urandom(SIZE))
    put(bucket / "large.mp4", bytes(2 * SIZE))
    with cache.file("s3://bucket/a.mp4") as path:
        full = r"no room in the cache: all of it is in use; raise storage\.cache_gib"
        with pytest.raises(ClipError, match=full), cache.file("s3://bucket/b.mp4"):
            pass
        assert Path(path).stat().st_size == SIZE
    with cache.file("s3://bucket/b.mp4"):
        assert kept(cache) == SIZE
    large = r"has 0.00 GiB, and the cache is 0.00 GiB; raise storage.cache_gib"
    with pytest.raises(ClipError, match=large), cache.file("s3://bucket/large.mp4"):
        pass


@pytest.mark.parametrize("kind", ["cut", "500", "reset"])
def test_a_broken_download_is_never_used(tmp_path: Path, s3: FaultyS3, bucket: Remote, kind: str) -> None:
    cache = Cache(tmp_path / "cache", 10 * SIZE)
    content = os.urandom(SIZE)
    put(bucket / "a.mp4", content)
    s3.plan = lambda method, path: Fault(kind) if method == "GET" else None
    with pytest.raises(ClipError, match="cannot be fetched: ") as failed, cache.file("s3://bucket/a.mp4"):
        pass
    assert failed.value.transient
    assert kept(cache) == 0
    s3.plan = lambda method, path: None
    with cache.file("s3://bucket/a.mp4") as path:
        assert Path(path).read_bytes() == content


@pytest.mark.parametrize(("kind", "text"), [("404", "does not exist"), ("403", "not readable: Forbidden")])
def test_what_is_gone_or_forbidden_fails_for_good(
    tmp_path: Path, s3: FaultyS3, bucket: Remote, kind: str, text: str
) -> None:
    put(bucket / "a.mp4", b"1")
    s3.plan = lambda method, path: Fault(kind)
    with pytest.raises(ClipError) as failed, Cache(tmp_path / "cache", SIZE).file("s3://bucket/a.mp4"):
        pass
    assert (str(failed.value), failed.value.transient) == (text, False)


def test_processes_share_a_small_cache_and_each_reads_whole_files(tmp_path: Path, s3: FaultyS3, bucket: Remote) -> None:
    for i in range(6):
        put(bucket / f"{i}.mp4", bytes([i]) * SIZE)
    code = (
        "import random, sys; from pathlib import Path; from stages.staging import Cache\n"
        f"cache = Cache(Path({str(tmp_path / 'cache')!r}), {4 * SIZE})\n"
        "draw = random.Random(int(sys.argv[1]))\n"
        "for _ in range(30):\n"
        "    i = draw.randrange(6)\n"
        "    with cache.file(f's3://bucket/{i}.mp4') as path:\n"
        f"        assert Path(path).read_bytes() == bytes([i]) * {SIZE}\n"
        f"    assert sum(p.stat().st_size for p in cache.folder.glob('*[0-9a-f]')) <= {4 * SIZE}\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(seed)], cwd=ROOT) for seed in range(3)]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    assert kept(Cache(tmp_path / "cache", 0)) <= 4 * SIZE


def test_what_a_killed_process_left_half_is_removed(tmp_path: Path, s3: FaultyS3, bucket: Remote) -> None:
    cache = Cache(tmp_path / "cache", SIZE)
    remote = put(bucket / "a.mp4", os.urandom(SIZE))
    own_folder(cache.folder)
    (cache.folder / "0123.part").write_bytes(bytes(SIZE))
    name = hashlib.blake2b(f"{remote.uri}\n{remote.info().stamp}".encode(), digest_size=16).hexdigest()
    (cache.folder / f"{name}.part").write_bytes(bytes(SIZE))
    with cache.file(remote.uri) as path:
        assert Path(path).stat().st_size == SIZE
    assert kept(cache) == SIZE


def test_a_cache_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(PermissionError, match=r"belongs to another user; set storage\.cache"):
        own_folder(tmp_path)
