"""The command line for model files, against a real local HTTP server."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from curation import weights as cli
from stages import weights
from stages.weight_table import Weight


class Server(ThreadingHTTPServer):
    """Serves `files`; `cut` bytes into the first answer it drops the connection. Notes each request's Range."""

    files: dict[str, bytes]
    cut: int | None = None
    ranges: list[str | None]
    url: str


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        start = 0 if asked is None else int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(200 if asked is None else 206)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        cut, self.server.cut = self.server.cut, None
        self.wfile.write(body[start:cut])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.files, running.ranges = {}, []
        running.url = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in weights.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path / "mine"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "mine"


def only(monkeypatch: pytest.MonkeyPatch, *table: Weight) -> None:
    """Makes `table` the whole table."""
    for name in list(weights.WEIGHTS):
        monkeypatch.delitem(weights.WEIGHTS, name)
    for weight in table:
        monkeypatch.setitem(weights.WEIGHTS, weight.name, weight)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_fetch_resumes_a_broken_download(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytes(range(256)) * 2000
    server.files["/a.pth"] = content
    server.cut = 100_000
    only(monkeypatch, Weight("a", "lib/a.pth", f"{server.url}/a.pth", "MIT", sha256=sha256(content)))

    assert cli.main(["fetch"]) == 1
    error = capsys.readouterr().err
    assert "a: " in error
    assert not (folder / "lib" / "a.pth").exists()

    assert cli.main(["fetch"]) == 0
    assert "a: MIT" in capsys.readouterr().err
    assert (folder / "lib" / "a.pth").read_bytes() == content
    assert server.ranges == [None, "bytes=100000-"]
    assert [p.name for p in (folder / "lib").iterdir()] == ["a.pth"]

    assert cli.main(["fetch"]) == 0
    assert len(server.ranges) == 2, "what is there is not fetched again"
    assert cli.main(["verify"]) == 0
    assert capsys.readouterr().out == f"a: ok, {folder}/lib/a.pth\n"


def test_two_files_of_one_archive_are_fetched_at_once(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("pack/det.onnx", b"detector")
        archive.writestr("rec.onnx", b"recogniser")
    server.files["/pack.zip"] = packed.getvalue()
    origin = f"{server.url}/pack.zip"
    only(
        monkeypatch,
        Weight("det", "if/det.onnx", origin, "research", sha256=sha256(b"detector"), member="det.onnx"),
        Weight("rec", "if/rec.onnx", origin, "research", sha256=sha256(b"recogniser"), member="rec.onnx"),
    )
    assert cli.main(["fetch", "det", "rec"]) == 0
    assert (folder / "if" / "det.onnx").read_bytes() == b"detector"
    assert (folder / "if" / "rec.onnx").read_bytes() == b"recogniser"
    assert server.ranges == [None]
    assert sorted(p.name for p in (folder / "if").iterdir()) == ["det.onnx", "rec.onnx"]


def test_a_wrong_file_is_not_kept(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["/a.pth"] = b"something else"
    only(monkeypatch, Weight("a", "a.pth", f"{server.url}/a.pth", "MIT", sha256=sha256(b"the published one")))
    assert cli.main(["fetch"]) == 1
    assert f"sha256 is {sha256(b'something else')}, expected {sha256(b'the published one')}" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_an_address_that_does_not_answer_and_a_file_to_get_by_hand(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only(
        monkeypatch,
        Weight("gone", "gone.pth", f"{server.url}/gone.pth", "MIT"),
        Weight("hand", "hand", "https://example.org/how", "non-commercial", by_hand=True),
    )
    assert cli.main(["fetch"]) == 1
    error = capsys.readouterr().err
    assert f"gone: {server.url}/gone.pth: HTTP Error 404" in error
    assert (
        f"hand: missing (non-commercial): get it by hand from https://example.org/how and put it at {folder}" in error
    )
    assert cli.main(["verify"]) == 1
    assert capsys.readouterr().out == "gone: missing\nhand: missing\n"


def test_list_shows_licence_origin_and_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "w600k_r50", "raft_large"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "w600k_r50: missing"
    assert "non-commercial research only" in lines[2]
    assert "raft_large_C_T_SKHT_V2-ff5fadd5.pth, 21.1 MB" in lines[4]


def test_an_unknown_name_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fetch", "clip-rn51"]) == 2
    assert "unknown model file 'clip-rn51'; known: clip-rn50, " in capsys.readouterr().err


def test_what_is_missing_is_fetched_on_first_use(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files |= {"/a.pth": b"the first", "/b.pth": b"the second"}
    only(
        monkeypatch,
        Weight("a", "a.pth", f"{server.url}/a.pth", "MIT", sha256=sha256(b"the first")),
        Weight("b", "b.pth", f"{server.url}/b.pth", "research only", sha256=sha256(b"the second")),
    )
    cli.ensure(["a"])
    assert (folder / "a.pth").read_bytes() == b"the first"
    assert not (folder / "b.pth").exists()
    threads = [threading.Thread(target=cli.ensure, args=(["a", "b"],)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (folder / "b.pth").read_bytes() == b"the second"
    assert len(server.ranges) == 2, "each file is fetched once, by whoever comes first"
    shown = capsys.readouterr().err
    assert "b: research only" in shown
    assert "9.00/9.00" in shown, "progress in bytes"


def test_nothing_is_fetched_for_a_run_that_cannot_start(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/a.pth"] = b"large"
    only(
        monkeypatch,
        Weight("a", "a.pth", f"{server.url}/a.pth", "MIT"),
        Weight("hand", "hand.pth", "https://example.org/how", "non-commercial", by_hand=True),
    )
    with pytest.raises(ValueError, match=r"model files:\n  a: missing .*\n  hand: missing .*by hand from https://exam"):
        cli.ensure(["a", "hand"])
    assert server.ranges == []


@pytest.mark.parametrize("variable", weights.OFFLINE)
def test_downloads_can_be_forbidden(
    server: Server,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
) -> None:
    server.files["/a.pth"] = b"a file"
    only(monkeypatch, Weight("a", "a.pth", f"{server.url}/a.pth", "MIT"))
    monkeypatch.setenv(variable, "1")
    expected = rf"downloads are off \({variable} is set\): get it from {server.url}/a.pth and put it at {folder}/a.pth"
    with pytest.raises(ValueError, match=expected):
        cli.ensure(["a"])
    assert cli.main(["fetch"]) == 1
    assert re.fullmatch(rf"a: missing \(MIT\): {expected}\n", capsys.readouterr().err)
    assert server.ranges == []
    monkeypatch.setenv(variable, "0")
    cli.ensure(["a"])
    assert (folder / "a.pth").exists()


def test_a_download_that_fails_names_file_address_and_place(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/b.pth"] = b"broken"
    nobody = "http://127.0.0.1:9/a.pth"
    only(
        monkeypatch,
        Weight("a", "a.pth", nobody, "MIT"),
        Weight("b", "b.pth", f"{server.url}/b.pth", "MIT", sha256=sha256(b"whole")),
    )
    with pytest.raises(ValueError) as caught:
        cli.ensure(["a", "b"])
    first, second = str(caught.value).splitlines()[1:]
    assert first.startswith(f"  a: {nobody}: [Errno 111] Connection refused (by hand: {nobody}, to be put at {folder}")
    assert second.startswith(f"  b: {server.url}/b.pth gave a file whose sha256 is {sha256(b'broken')}")
    assert [path.name for path in folder.iterdir()] == [".lock"]
