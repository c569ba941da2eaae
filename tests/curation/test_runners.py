"""Both runners on small real files, with fake engines that kill, hang and raise (see fakes.py)."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from curation.cluster import shutdown
from curation.errors import Stopped
from curation.fingerprint import describe_engines
from curation.jobs import Actor
from curation.ray_runner import RayRunner
from curation.run import main
from curation.worker import Task
from manifests.shards import read_manifest
from tests.curation import fakes, made
from tests.curation.made import GOOD


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A local Ray of two CPUs whose workers know the fake engines."""
    ray.init(
        num_cpus=2,
        log_to_driver=False,
        include_dashboard=False,
        logging_level=logging.ERROR,
        runtime_env=fakes.RUNTIME_ENV,
    )
    yield
    shutdown()


@pytest.fixture(autouse=True)
def fake_engines() -> None:
    fakes.install()


def curate(folder: Path, *options: str, output: str = "out", **changes: Any) -> int:
    """Run the command on `folder`/clips."""
    raw: dict[str, Any] = {
        "output": output,
        "sources": [{"name": "s", "kind": "folder", "root": "clips"}],
        "stages": fakes.STAGES,
        "frames": fakes.FRAMES,
        "thresholds": {"min_side": 64, **fakes.THRESHOLDS},
        "execution": {"max_failed_fraction": 1.0, "deadline_s": 30},
    }
    for key, value in changes.items():
        raw[key] = {**raw.get(key, {}), **value}
    path = folder / "sources.yaml"
    path.write_text(yaml.safe_dump(raw))
    return main([str(path), *options])


def ends(output: Path) -> dict[str, Any]:
    """Per file: "kept", the reason of the rejection, or stage and error of the failure."""
    kept = {row["path"]: "kept" for row in read_manifest(output).to_pylist()}
    rows = read_manifest(output / "rejected").to_pylist()
    return kept | {r["path"]: r["reason"] or (r["stage"], r["error"]) for r in rows}


def shards(output: Path) -> dict[str, bytes]:
    found = [*output.glob("manifests/*"), *output.glob("rejected/*"), *output.glob("flows/*/*/*")]
    return {str(p.relative_to(output)): p.read_bytes() for p in found}


MIXED = ["a-1.mp4", "b-2.mp4", "raise-3.mp4", "nan-4.mp4", "c-5.mp4", "d-6.mp4"]


def test_an_engine_that_raises_fails_its_clip_alone(tmp_path: Path) -> None:
    fakes.write_clips(tmp_path / "clips", *MIXED)
    (tmp_path / "clips" / "short-9.mp4").write_bytes(b"not a video")
    assert curate(tmp_path, "--runner", "in-process") == 0
    found = ends(tmp_path / "out")
    assert [p for p, end in found.items() if end == "kept"] == sorted(
        ["a-1.mp4", "b-2.mp4", "c-5.mp4", "d-6.mp4"], key=list(found).index
    )
    assert found["raise-3.mp4"] == ("quality", "ValueError: cannot make sense of 1 clip(s)")
    assert found["nan-4.mp4"][1] == "quality measured quality_score = nan, which is not a number to judge by"
    assert found["short-9.mp4"][0] == "header"


def test_ray_writes_the_same_bytes_as_the_in_process_runner(tmp_path: Path, cluster: None) -> None:
    fakes.write_clips(tmp_path / "clips", *MIXED)
    assert curate(tmp_path, "--runner", "in-process", output="one") == 0
    assert curate(tmp_path, output="two") == 0
    stages = list(GOOD)
    pools = [
        {"stages": stages[:3], "cpus": 0.5, "batch": 2},
        {"stages": stages[3:6], "cpus": 0.5, "batch": 3},
        {"stages": stages[6:], "cpus": 0.5, "batch": 2},
    ]
    assert curate(tmp_path, output="three", execution={"groups": pools}) == 0
    one = shards(tmp_path / "one")
    assert len(one) == 2 + 4
    assert one == shards(tmp_path / "two") == shards(tmp_path / "three")
    rows = read_manifest(tmp_path / "three").to_pylist()
    assert {r["path"]: r["motion_intensity"] for r in rows} == {r["path"]: fakes.number(r["path"]) for r in rows}


def test_a_clip_that_kills_its_worker_fails_and_the_others_go_on(
    tmp_path: Path, cluster: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = RayRunner._lost
    half = tmp_path / "out" / "measurements" / ".x.parquet.0123.tmp"

    def lost_while_writing(*args: Any, **named: Any) -> Iterator[Task]:
        half.write_bytes(b"half")
        yield from lost(*args, **named)

    monkeypatch.setattr(RayRunner, "_lost", lost_while_writing)
    names = [f"good-{i}.mp4" for i in range(6)]
    fakes.write_clips(tmp_path / "clips", *names, "kill-7.mp4", "once-8.mp4")
    pools = [{"stages": list(GOOD)[:2], "cpus": 0.5}, {"stages": list(GOOD)[2:], "cpus": 0.5, "batch": 4}]
    assert curate(tmp_path, execution={"groups": pools}) == 0
    found = ends(tmp_path / "out")
    stage, error = found.pop("kill-7.mp4")
    assert stage == "quality"
    assert error.startswith("its worker was lost 2 times, the last time at quality: the worker process ended")
    assert found == {name: "kept" for name in [*names, "once-8.mp4"]}
    assert not half.exists()
    assert "8 clips = 7 kept + 0 rejected + 1 failed" in capsys.readouterr().out
    # A lost worker may have been the machine's fault: the next run tries that clip again, and only that one.
    assert curate(tmp_path, execution={"groups": pools}) == 0
    assert "1 clip" in capsys.readouterr().err.replace("1/1", "1 clip")


@pytest.mark.slow
def test_a_clip_that_hangs_its_worker_fails_and_the_others_go_on(tmp_path: Path, cluster: None) -> None:
    fakes.write_clips(tmp_path / "clips", "a-1.mp4", "hang-2.mp4", "b-3.mp4")
    assert curate(tmp_path, execution={"clip_deadline_s": 20}) == 0
    found = ends(tmp_path / "out")
    text = "its worker was lost 2 times, the last time at quality: did not finish within 20 s"
    assert found["hang-2.mp4"] == ("quality", text)
    assert not (tmp_path / "out" / "measurements" / ".trace").exists()
    assert (found["a-1.mp4"], found["b-3.mp4"]) == ("kept", "kept")


def test_a_plan_that_cannot_be_scheduled_ends_at_once_with_one_line(
    tmp_path: Path, cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes.write_clips(tmp_path / "clips", "a-1.mp4")
    pools = [{"stages": list(GOOD)[:2]}, {"stages": list(GOOD)[2:], "gpus": 1}]
    assert curate(tmp_path, execution={"groups": pools}) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("stopped: the cluster has 0 GPUs, but one actor")


def test_a_cluster_that_others_hold_is_not_waited_for_without_end(
    tmp_path: Path, cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes.write_clips(tmp_path / "clips", "a-1.mp4")

    @ray.remote(num_cpus=2)
    class Hog:
        def ready(self) -> bool:
            return True

    hog = Hog.remote()
    ray.get(hog.ready.remote())
    assert curate(tmp_path, execution={"start_timeout_s": 3}) == 1
    ray.kill(hog)
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "no worker for header..caption could be started in" in line
    assert "the cluster has 0 of 2 CPUs and 0 of 0 GPUs free" in line


@pytest.mark.parametrize("runner", ["in-process", "ray"])
def test_an_engine_that_cannot_be_set_up_stops_the_run_with_one_line(
    tmp_path: Path, cluster: None, capsys: pytest.CaptureFixture[str], runner: str
) -> None:
    fakes.write_clips(tmp_path / "clips", "a-1.mp4")
    assert curate(tmp_path, "--runner", runner, stages={"text": {"engine": "broken"}}) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("stopped: ")
    assert line.endswith("the engine of text cannot be set up: OSError: weights are damaged")


@pytest.mark.slow
def test_a_lone_worker_that_is_lost_late_is_replaced(tmp_path: Path, cluster: None) -> None:
    names = [f"good-{i}.mp4" for i in range(4)]
    fakes.write_clips(tmp_path / "clips", *names, "kill-7.mp4")
    assert curate(tmp_path, execution={"workers": 1, "start_timeout_s": 60, "clip_deadline_s": 30}) == 0
    found = ends(tmp_path / "out")
    assert found.pop("kill-7.mp4")[0] == "quality"
    assert found == dict.fromkeys(names, "kept")


@pytest.mark.slow
def test_one_core_is_enough_for_several_pools(tmp_path: Path) -> None:
    fakes.write_clips(tmp_path / "clips", "a-1.mp4", "b-2.mp4")
    pools = [{"stages": list(GOOD)[:3]}, {"stages": list(GOOD)[3:7], "batch": 2}, {"stages": list(GOOD)[7:]}]
    code = (
        "import ray, tests.curation.fakes as f; from pathlib import Path\n"
        "from tests.curation.test_runners import curate\n"
        "ray.init(num_cpus=1, log_to_driver=False, include_dashboard=False, runtime_env=f.RUNTIME_ENV)\n"
        f"f.install(); raise SystemExit(curate(Path({str(tmp_path)!r}), execution={{'groups': {pools!r}}}))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=fakes.ROOT, check=True, timeout=280)
    assert ends(tmp_path / "out") == {"a-1.mp4": "kept", "b-2.mp4": "kept"}


def test_more_failed_clips_than_allowed_is_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fakes.write_clips(tmp_path / "clips", "a-1.mp4", "raise-2.mp4")
    assert curate(tmp_path, "--runner", "in-process", execution={"max_failed_fraction": 0.4}) == 3
    assert "1 of 2 clips failed, more than max_failed_fraction = 0.4" in capsys.readouterr().err
    assert ends(tmp_path / "out")["a-1.mp4"] == "kept"


def test_resuming_measures_only_what_is_lacking(tmp_path: Path) -> None:
    fakes.write_clips(tmp_path / "clips", *MIXED[:2], "raise-3.mp4")

    def measured(*options: str, **changes: Any) -> dict[str, int]:
        import json

        assert curate(tmp_path, "--runner", "in-process", *options, **changes) == 0
        stages = json.loads((tmp_path / "out" / "summary.json").read_text())["stages"]
        return {name: entry["measured"] for name, entry in stages.items() if entry["measured"]}

    assert measured("--limit", "1") == dict.fromkeys(GOOD, 1)
    before = shards(tmp_path / "out")
    assert len(before) == 3
    second = {"header": 2, "decode": 2, "cut": 2, "hash": 2, "quality": 2, "text": 1, "face": 1, "crop": 1}
    second |= {"embedding": 1, "motion": 1, "caption": 1}
    assert measured() == second
    assert measured() == {}
    assert measured("--retry-failed") == {"quality": 1}
    # A threshold measures nothing; an engine's parameters measure its stage and those that read it.
    assert measured(thresholds={"min_quality": 0.6}) == {}
    assert measured(frames={"crop": "center"}) == {"crop": 2, "embedding": 2, "motion": 2, "caption": 2}
    (tmp_path / "clips" / "a-1.mp4").touch()
    assert measured() == dict.fromkeys(GOOD, 1)
    # A tightened threshold re-decides only; loosened again, it measures only what it brings in.
    fakes.write_clips(tmp_path / "clips", "new-4.mp4")
    assert measured(thresholds={"min_side": 100}) == {"header": 1}
    assert ends(tmp_path / "out")["a-1.mp4"] == "resolution"
    assert measured() == dict.fromkeys(list(GOOD)[1:], 1)


def test_who_loads_models_has_found_its_place(tmp_path: Path, cluster: None) -> None:
    config = made.config(tmp_path)
    runner = RayRunner(config, describe_engines(config))
    runner._actors = [Actor(None, 0, placed=True)]
    runner._last_placed = [-1e6]
    runner._refuse_to_hang()
    runner._actors, runner._last_placed = [Actor(None, 0)], [-1e6]
    with pytest.raises(Stopped, match=r"no worker for header\.\.caption could be started in"):
        runner._refuse_to_hang()
