"""An OpenAI-compatible server on loopback that misbehaves as a test asks."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

from stages.caption_text import ASK_CAPTION

THINGS = ["apple", "banana", "cherry", "dish", "egg", "fork", "glass", "hat", "iron", "jug", "kettle", "lamp"]


@dataclass
class Server:
    """Answers what the picture's colour says: clip i is shown in grey 16 * i + 8.

    behave(clip, "caption" or "action", attempt from 0) returns a status, an answer of its own, or None for the right
    one. The server records every request as (clip, what, attempt) and what was wrong with it.
    """

    behave: Callable[[int, str, int], int | str | None] = lambda clip, what, attempt: None
    seen: list[tuple[int, str, int]] = field(default_factory=list)
    done: list[tuple[int, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answered: threading.Condition = field(default_factory=threading.Condition)
    closing: threading.Event = field(default_factory=threading.Event)
    open: int = 0
    most_open: int = 0
    url: str = ""

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, str]:
        content = body["messages"][0]["content"]
        pictures = [self._decode(part["image_url"]["url"]) for part in content if part["type"] == "image_url"]
        question = content[-1]["text"]
        clip = (int(pictures[0].mean()) - 8 + 4) // 16
        what = "caption" if ASK_CAPTION in question else "action"
        with self.answered:
            attempt = sum((c, w) == (clip, what) for c, w, _ in self.seen)
            self.seen.append((clip, what, attempt))
            self.requests.append(body)
            if path != "/v1/chat/completions":
                self.faults.append(f"path {path}")
            if any(abs(p.mean() - (16 * clip + 8)) > 3 for p in pictures):
                self.faults.append(f"pictures of several clips in one request of clip {clip}")
            if what == "action" and f'"A man holds the {THINGS[clip]}."' not in question:
                self.faults.append(f"the action of clip {clip} was asked for with another description: {question}")
        behaviour = self.behave(clip, what, attempt)
        if isinstance(behaviour, int):
            return behaviour, "no"
        right = f"A man holds the {THINGS[clip]}." if what == "caption" else f"He is holding the {THINGS[clip]}."
        with self.answered:
            self.done.append((clip, what))
            self.answered.notify_all()
        message = {"role": "assistant", "content": right if behaviour is None else behaviour}
        return 200, json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def _decode(self, url: str) -> np.ndarray:
        head, data = url.split(",", 1)
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        if head != f"data:image/{(image.format or '').lower()};base64":
            self.faults.append(f"{head} holds {image.format}")
        return np.asarray(image.convert("RGB"))

    def wait_for(self, clip: int, what: str) -> None:
        """Until this clip's question was answered."""
        with self.answered:
            if not self.answered.wait_for(lambda: (clip, what) in self.done, timeout=20):
                self.faults.append(f"waited in vain for {what} of clip {clip}")


@contextmanager
def serving() -> Iterator[Server]:
    """A server that answers while the block runs."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            with state.answered:
                state.open += 1
                state.most_open = max(state.most_open, state.open)
                state.headers.append(dict(self.headers))
            try:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, text = state.answer(self.path, body)
            finally:
                with state.answered:
                    state.open -= 1
            try:
                self.send_response(status)
                if status == 429:
                    self.send_header("Retry-After", "7")
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())
            except (BrokenPipeError, ConnectionResetError):  # the client gave up waiting
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_address[1]}/v1"
    yield state
    state.closing.set()
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def right(clip: int) -> tuple[str, str]:
    return f"A man holds the {THINGS[clip]}.", f"holding the {THINGS[clip]}"
