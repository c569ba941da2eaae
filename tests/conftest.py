"""Fixtures that several packages' tests share."""

from __future__ import annotations

import atexit
import faulthandler
import logging
import os
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from manifests import storage
from tests.faulty_s3 import CREDENTIALS, FaultyS3, clear_clients

# By default a property fails that takes 0.2 s once: on a busy machine any does.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parent.parent
SESSION = pytest.StashKey[pytest.Session]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep this process and its children apart from any Ray of this machine: neither joined nor put on record."""
    os.environ.pop("RAY_ADDRESS", None)
    os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a socket's path has 107 characters at most


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.stash[SESSION] = session


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Where tests ran, leave with the interpreter up. This process has loaded all of our native libraries and had
    Ray started and stopped in it many times over; once, with all tests passed, it crashed while being taken down.
    Programs are tested in processes of their own, and what those exit with is looked at.
    """
    shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)
    session = config.stash.get(SESSION, None)
    if session and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        faulthandler.enable()  # pytest's own has ended
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(session.exitstatus)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips, stills and weights beside the project; tests that need it skip where it is absent."""
    path = Path(os.environ.get("HUMAN_MOTION_SHARED", ROOT.parent / "shared"))
    if not (path / "clips").is_dir():
        pytest.skip(f"no real clips at {path}: set HUMAN_MOTION_SHARED")
    return path


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """URL of a real S3 server on loopback, empty at first."""
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """The server behind a proxy that breaks requests as its `plan` says, and the environment of its clients."""
    pytest.importorskip("s3fs")
    monkeypatch.setattr(storage, "PAUSES_S", (0.01,) * len(storage.PAUSES_S))
    with FaultyS3(s3_server) as proxy:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": proxy.url}.items():
            monkeypatch.setenv(name, value)
        urllib.request.urlopen(urllib.request.Request(f"{s3_server}/moto-api/reset", method="POST")).close()
        yield proxy
        clear_clients()


@pytest.fixture
def bucket(s3: FaultyS3) -> storage.Remote:
    """An empty bucket."""
    urllib.request.urlopen(urllib.request.Request(f"{s3.url}/bucket", method="PUT")).close()
    return storage.Remote("s3://bucket")
