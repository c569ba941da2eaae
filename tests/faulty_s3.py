"""A real S3 server on loopback, and a proxy before it that misbehaves on demand."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

REGION = "us-east-1"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    kind: "500" and "503" are answers of S3; "slow" waits `seconds` and then answers rightly; "cut" closes the
    connection in the middle of the right answer; "reset" closes it before any; "404" and "403" as if so it were.
    """

    kind: str
    seconds: float = 0.0


Plan = Callable[[str, str], Fault | None]  # of method and path (/bucket/key?query); None lets the request pass


@dataclass
class FaultyS3:
    """A proxy to the S3 server at `target`. `plan` may be changed at any time; `seen` counts requests by method,
    `faults` by kind."""

    target: str
    plan: Plan = lambda method, path: None
    seen: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    _server: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultyS3:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def clear_clients() -> None:
    """Forget the clients that fsspec keeps: they know the address of a proxy that is gone."""
    import fsspec

    fsspec.get_filesystem_class("s3").clear_instance_cache()


def _handler(proxy: FaultyS3) -> type[BaseHTTPRequestHandler]:
    target = urlsplit(proxy.target).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def forward(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self._chunked() if self.headers.get("Transfer-Encoding") == "chunked" else self.rfile.read(length)
            fault = proxy.plan(self.command, self.path)
            proxy.seen[self.command] += 1
            if fault is not None:
                proxy.faults[fault.kind] += 1
                if fault.kind == "slow":
                    time.sleep(fault.seconds)
                elif fault.kind == "reset":
                    self.close_connection = True
                    self.connection.close()
                    return
                elif fault.kind != "cut":
                    self._refuse(int(fault.kind))
                    return
            connection = http.client.HTTPConnection(target, timeout=60)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "transfer-encoding"}
            headers["Content-Length"] = str(len(body))
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                    self.send_header(name, value)
            said = answer.getheader("Content-Length")
            self.send_header("Content-Length", said if self.command == "HEAD" and said else str(len(content)))
            self.end_headers()
            connection.close()
            if self.command == "HEAD":
                return
            if fault is not None and fault.kind == "cut":
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
                return
            self.wfile.write(content)

        def _refuse(self, status: int) -> None:
            code = {500: "InternalError", 503: "SlowDown", 404: "NoSuchKey", 403: "AccessDenied"}[status]
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>made up by the test</Message></Error>"
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", "0" if self.command == "HEAD" else str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text.encode())

        def _chunked(self) -> bytes:
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward

    return Handler
