"""Models by their name on the Hugging Face hub, from a local server that speaks as much of the hub's protocol as its
client asks for, and breaks connections."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 48 * 2**10,  # 12 MiB: the client writes, and goes on, in tens of them
    "pytorch_model.bin": b"never asked for",
}
DOWNLOAD = """
from stages.frames import FrameSpec
from stages.image_text import ImageText, ImageTextParams
engine = ImageText(ImageTextParams(model="some/model"), FrameSpec())
try:
    engine.download()
    print(engine.folder())
    print(engine.version())
except ValueError as error:
    print(error)
"""


@dataclass
class Hub:
    """`cut`: after so many bytes of the weights the connection is broken, once. `sent`: other bytes in their place."""

    home: Path
    url: str = ""
    cut: int | None = None
    sent: bytes | None = None
    ranges: list[str | None] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    def download(self) -> tuple[list[str], str]:
        """What a process of its own prints that downloads the model, and its progress."""
        env = os.environ | {"HF_ENDPOINT": self.url, "HF_HOME": str(self.home), "HOME": str(self.home)}
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HUMAN_MOTION_OFFLINE", "HF_HUB_CACHE"):
            env.pop(name, None)
        run = subprocess.run([sys.executable, "-c", DOWNLOAD], env=env, capture_output=True, text=True, check=True)
        return run.stdout.splitlines(), run.stderr


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    state = Hub(tmp_path / "hub")

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith("/api/models/some/model/revision/"):
                self.send_json({"id": "some/model", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]})
            elif path.startswith("/api/models/some/model/tree/"):
                self.send_json([{"type": "file", "path": n, "size": len(c), "oid": oid(c)} for n, c in FILES.items()])
            elif path.startswith(f"/some/model/resolve/{COMMIT}/"):
                self.send_file(path.rsplit("/", 1)[1])
            else:
                self.send_error(404)

        def send_json(self, answer: object) -> None:
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def send_file(self, name: str) -> None:
            content = FILES[name]
            large = name == "model.safetensors"
            etag = hashlib.sha256(content).hexdigest() if large else oid(content)
            asked = self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
            body = (state.sent or content) if large else content
            self.send_response(206 if asked else 200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{etag}"')
            self.send_header("Content-Length", str(len(body) - start))
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.end_headers()
            if self.command == "HEAD":
                return
            state.asked.add(name)
            if large:
                state.ranges.append(asked)
                cut, state.cut = state.cut, None
                body = body[:cut]
            self.wfile.write(body[start:])

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield state
        server.shutdown()
        thread.join()


def oid(content: bytes) -> str:
    """Git's name of a small file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def test_a_broken_download_goes_on_where_it_stopped_and_the_commit_is_the_version(hub: Hub) -> None:
    hub.cut = 11 * 2**20
    (folder, version), shown = hub.download()
    assert (Path(folder) / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert hub.ranges == [None, f"bytes={10 * 2**20}-"]
    assert hub.asked == {"config.json", "model.safetensors"}
    assert version.endswith(f", model={COMMIT[:16]}")
    assert "100%" in shown, "progress"
    (again, _), _ = hub.download()
    assert again == folder
    assert len(hub.ranges) == 2, "what is there is not fetched again"


def test_a_file_that_is_not_the_hubs_is_refused_every_time(hub: Hub) -> None:
    right = FILES["model.safetensors"]
    hub.sent = right[:-1] + b"?"
    for _ in range(2):
        (line,), _ = hub.download()
        assert f"model.safetensors is not what the hub has, by its sha256: delete {hub.home}" in line
    Path(line.split("delete ")[1].split(" and ")[0]).unlink()
    hub.sent = None
    (folder, _), _ = hub.download()
    assert (Path(folder) / "model.safetensors").read_bytes() == right


def test_a_model_that_the_hub_does_not_have_is_one_line(hub: Hub) -> None:
    hub.url += "/nothing"
    (line,), _ = hub.download()
    assert line.startswith(f"caption: cannot load the model some/model from {hub.url}/some/model: ")
