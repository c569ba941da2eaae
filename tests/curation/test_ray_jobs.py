"""The README's lines for a Ray cluster: a head node with a token, and jobs submitted to it from another directory."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from manifests.shards import read_manifest
from tests.curation import fakes

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def readme_line(start: str) -> str:
    """The one line of the README that begins so."""
    (line,) = re.findall(rf"^{start}.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    return line


def submit_line() -> str:
    return readme_line("ray job submit ")


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A head node of two CPUs on free ports, of a user with an empty home; yields the environment to submit from."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    environment["HOME"] = str(tmp_path_factory.mktemp("home"))
    mode, value = readme_line("export RAY_AUTH_MODE").removeprefix("export ").split("=")
    environment[mode] = value
    port, dashboard = free_ports(2)
    environment["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # where it is put on record
    environment["DASHBOARD"] = f"http://127.0.0.1:{dashboard}"
    start = f"{readme_line('ray start')} --block --port={port} --dashboard-port={dashboard} --num-cpus=2"
    token = readme_line("ray get-auth-token").split()
    subprocess.run(token, check=True, env=environment, capture_output=True, timeout=300)
    ray_head = subprocess.Popen(start.split(), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(environment["DASHBOARD"], ray_head)
        yield environment
    finally:
        ray_head.terminate()  # `ray stop` would stop every Ray of this machine
        ray_head.wait(120)
        shutil.rmtree(environment["RAY_TMPDIR"], ignore_errors=True)


def wait_for(url: str, ray_head: subprocess.Popen[bytes]) -> None:
    """Wait for the head's job server, which answers those without a token too, if only to refuse them."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        assert ray_head.poll() is None, "the head ended"
        try:
            urllib.request.urlopen(f"{url}/api/version", timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(url)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def write_config(folder: Path, output: str, root: str) -> Path:
    raw = {
        "output": output,
        "sources": [{"name": "s", "kind": "folder", "root": root}],
        "frames": fakes.FRAMES,
        "thresholds": {"min_side": 64},
    }
    path = folder / "sources.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def submit(line: str, cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    line = line.replace("http://127.0.0.1:8265", environment["DASHBOARD"])
    return subprocess.run(line.split(), cwd=cwd, env=environment, capture_output=True, text=True, timeout=400)


def test_the_readmes_line_works_from_another_directory(head: dict[str, str], tmp_path: Path) -> None:
    fakes.write_clips(tmp_path / "data" / "clips", "a-1.mp4", "b-2.mp4")
    config = write_config(tmp_path / "data", "out", "clips")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = submit(submit_line().replace("/data/sources.yaml", str(config)), elsewhere, head)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 clips = 0 kept + 2 rejected + 0 failed" in done.stdout
    assert read_manifest(tmp_path / "data" / "out" / "rejected")["reason"].to_pylist() == ["no_face"] * 2


def test_a_working_directory_needs_absolute_paths_and_the_package_need_not_be_in_it(
    head: dict[str, str], tmp_path: Path
) -> None:
    fakes.write_clips(tmp_path / "clips", "a-1.mp4")
    folder = tmp_path / "job"
    folder.mkdir()
    line = submit_line().replace(" -- ", " --working-dir . -- ").replace("/data/sources.yaml", "sources.yaml")
    write_config(folder, "out", str(tmp_path / "clips"))
    refused = submit(line, folder, head)
    assert refused.returncode != 0
    assert "lies in Ray's temporary working directory; give an absolute path" in refused.stdout + refused.stderr
    write_config(folder, str(tmp_path / "out"), str(tmp_path / "clips"))
    done = submit(line, folder, head)
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_manifest(tmp_path / "out" / "rejected").num_rows == 1
    shutil.rmtree(tmp_path / "out")
