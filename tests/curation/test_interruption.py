"""Runs that are killed, and files that nobody would call videos: nothing is lost, nothing hangs."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from curation.run import main
from manifests.shards import read_manifest
from tests.curation import fakes
from tests.media import write_video

ROOT = Path(__file__).resolve().parent.parent.parent


def write_config(folder: Path, output: str, **changes: Any) -> Path:
    raw: dict[str, Any] = {
        "output": output,
        "sources": [{"name": "s", "kind": "folder", "root": "clips"}],
        "frames": fakes.FRAMES,
        "thresholds": {"min_side": 64},
        "execution": {"max_failed_fraction": 1.0, "deadline_s": 30},
    }
    path = folder / f"{output}.yaml"
    path.write_text(yaml.safe_dump(raw | changes))
    return path


def shards(output: Path) -> dict[str, bytes]:
    found = [*output.glob("manifests/*"), *output.glob("rejected/*"), *output.glob("flows/*/*/*")]
    return {str(p.relative_to(output)): p.read_bytes() for p in found}


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    fakes.install()
    fakes.write_clips(tmp_path / "clips", *[f"clip-{i}.mp4" for i in range(30)])
    fake = {"stages": fakes.STAGES, "thresholds": {"min_side": 64, **fakes.THRESHOLDS}}
    assert main([str(write_config(tmp_path, "whole", **fake)), "--runner", "in-process"]) == 0
    config = write_config(tmp_path, "killed", **fake)
    code = (
        "import sys, curation.store as s, tests.curation.fakes as f; from curation.run import main\n"
        "f.install()\n"
        "new = s.Recorder.__init__\n"
        "s.Recorder.__init__ = lambda self, output, stages: new(self, output, stages, rows=8)\n"
        f"sys.exit(main([{str(config)!r}, '--runner', 'in-process']))"
    )
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
        before = len(list((tmp_path / "killed").glob("measurements/header/*/*")))
        until = time.monotonic() + 120
        while len(list((tmp_path / "killed").glob("measurements/header/*/*"))) <= before + 1:
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "killed" / "manifests").exists()
    assert main([str(config), "--runner", "in-process"]) == 0
    summary = json.loads((tmp_path / "killed" / "summary.json").read_text())
    assert summary["inputs"] == 30 == summary["kept"] + summary["rejected"] + summary["failed"]
    assert 0 < summary["stages"]["header"]["measured"] < 30
    assert shards(tmp_path / "killed") == shards(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["driver", "every process"])
def test_a_killed_run_on_ray_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, whom: str) -> None:
    fakes.install()
    fakes.write_clips(tmp_path / "clips", *[f"clip-{i}.mp4" for i in range(40)])
    fake = {"stages": fakes.STAGES, "thresholds": {"min_side": 64, **fakes.THRESHOLDS}}
    assert main([str(write_config(tmp_path, "whole", **fake)), "--runner", "in-process"]) == 0
    config = write_config(tmp_path, "killed", **fake)
    code = (
        "import ray, sys, tests.curation.fakes as f; from curation.run import main\n"
        "ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False, runtime_env=f.RUNTIME_ENV)\n"
        f"f.install(); sys.exit(main([{str(config)!r}]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 200
    while not rows_on_disk(tmp_path / "killed"):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.05)
    for pid in [*(descendants(process.pid) if whom == "every process" else []), process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    measured = rows_on_disk(tmp_path / "killed")
    assert main([str(config), "--runner", "in-process"]) == 0
    summary = json.loads((tmp_path / "killed" / "summary.json").read_text())
    assert all(stage["measured"] <= 40 - measured for stage in summary["stages"].values())
    assert shards(tmp_path / "killed") == shards(tmp_path / "whole")


def rows_on_disk(output: Path) -> int:
    """Clips whose last stage is stored."""
    return sum(pq.read_metadata(path).num_rows for path in output.glob("measurements/caption/*/[0-9]*.parquet"))


def descendants(pid: int) -> list[int]:
    """All processes below this one."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    children = parents.get(pid, [])
    return [*children, *(below for child in children for below in descendants(child))]


def test_every_hostile_file_ends_with_a_verdict_or_a_reason(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    good = write_video(tmp_path / "good.mp4", frames=30, size=(64, 64), fps=10).read_bytes()
    clips.mkdir()
    names: dict[bytes, bytes] = {f"cut-{i}.mp4".encode(): good[: len(good) * i // 20] for i in range(20)}
    for i in range(8):
        damaged = bytearray(good)
        for at in range(100 + i, len(damaged), 97):
            damaged[at] ^= 1 << i
        names[f"flipped-{i}.mp4".encode()] = bytes(damaged)
    names |= {
        b"magic.mp4": b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"zeros.mkv": bytes(10_000),
        b"text.webm": b"not a video",
        b"picture.png": b"not a picture",
        b"not utf-8 \xff\xfe.mp4": good,
        b"new\nline ' \" <b>.mp4": good,
        "émoji 😀.mp4".encode(): good,
    }
    for name, content in names.items():
        (Path(os.fsdecode(os.fsencode(clips) + b"/" + name))).write_bytes(content)
    os.mkfifo(clips / "fifo.mp4")
    (clips / "folder.mp4").mkdir()
    (clips / "broken.mp4").symlink_to("nowhere")
    (clips / "out.mp4").symlink_to(tmp_path / "good.mp4")
    total = len(names) + 4
    started = time.monotonic()
    assert main([str(write_config(tmp_path, "out")), "--runner", "in-process"]) == 0
    assert time.monotonic() - started < 120
    rows = read_manifest(tmp_path / "out" / "rejected").to_pylist() + read_manifest(tmp_path / "out").to_pylist()
    assert len(rows) == total
    for row in rows:
        if row.get("status") == "failed":
            assert len(row["error"]) > 8, row
        else:
            assert row.get("reason") or row.get("caption"), row
    by_path = {row["path"]: row for row in rows}
    assert by_path["fifo.mp4"]["error"] == "is a FIFO, not a regular file"
    assert by_path["cut-0.mp4"]["error"] == "is empty (0 bytes)"
    for path in ("not utf-8 %FF%FE.mp4", "new\nline ' \" <b>.mp4", "émoji 😀.mp4"):
        assert by_path[path]["reason"] == "no_face"  # it decodes: a pattern without a face


def test_an_unwritable_output_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fakes.write_clips(tmp_path / "clips", "a-1.mp4")
    (tmp_path / "out").write_text("a file where the folder should be")
    assert main([str(write_config(tmp_path, "out")), "--runner", "in-process"]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("stopped: ")
    assert line.endswith("Not a directory")
