"""The groups that are planned for GPUs, as Ray places them: on two GPUs that are only counted, with fake engines that
note where they are set up. And what Ray's metrics then show of the run."""

from __future__ import annotations

import json
import logging
import os
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from curation import placement
from curation.cluster import cluster_size, shutdown
from curation.config_file import load
from curation.placement import Footprint
from curation.run import main
from stages import motion, quality, text
from tests.curation import fakes

NOTES = "HUMAN_MOTION_TEST_NOTES"


class Noting:
    """A mixin of fakes: leaves a note of its process, its device and the GPUs that Ray gave it."""

    stage: str

    def setup(self, device: str) -> None:
        gpus = ray.get_runtime_context().get_accelerator_ids()["GPU"]
        note = {"stage": self.stage, "device": device, "gpus": gpus, "pid": os.getpid()}
        (Path(os.environ[NOTES]) / f"{self.stage}-{os.getpid()}").write_text(json.dumps(note))


class NotingText(Noting, fakes.FakeText):
    pass


class NotingQuality(Noting, fakes.FakeQuality):
    pass


class NotingMotion(Noting, fakes.FakeMotion):
    pass


def install() -> None:
    """Register the engines, in this process or in a Ray worker."""
    fakes.install()
    engines: list[tuple[Any, type[fakes.Fake]]] = [
        (quality.STAGE, NotingQuality),
        (text.STAGE, NotingText),
        (motion.STAGE, NotingMotion),
    ]
    for stage, engine in engines:
        stage.engines["fake"] = engine


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[Path]:
    """Where the engines leave their notes, with a Ray of four CPUs and two GPUs around it."""
    folder = tmp_path / "notes"
    folder.mkdir()
    ray.init(
        num_cpus=4,
        num_gpus=2,
        log_to_driver=False,
        include_dashboard=False,
        logging_level=logging.ERROR,
        _system_config={"metrics_report_interval_ms": 500},
        runtime_env={
            "worker_process_setup_hook": "tests.curation.test_gpu_actors.install",
            "env_vars": {"PYTHONPATH": str(fakes.ROOT), NOTES: str(folder)},
        },
    )
    yield folder
    shutdown()


def metrics() -> dict[tuple[str, str], float]:
    """What the page that Prometheus reads shows of the run: by name and stage or group."""
    node = ray.nodes()[0]
    page = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    text = urllib.request.urlopen(page, timeout=10).read().decode()
    found = re.finditer(r'^ray_human_motion_(\w+)\{.*?(?:stage|group)="(.+?)".*\} (\S+)$', text, re.M)
    return {(name, of): float(value) for name, of, value in (match.groups() for match in found)}


def test_groups_land_on_gpus_as_planned(tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    # Of the default 24 GiB: (0.6 + 12 + 2 x 0.5) / 22.8 and (0.6 + 15 + 2 x 0.5) / 22.8, rounded up.
    footprints = {
        ("quality", "fake"): Footprint(12.0, 0.5, batch=2),
        ("motion", "fake"): Footprint(15.0, 0.5, batch=2),
    }
    monkeypatch.setattr(placement, "FOOTPRINTS", footprints)
    names = [*(f"a-{i}.mp4" for i in range(8)), "raise-8.mp4"]
    fakes.write_clips(tmp_path / "clips", *names)
    raw: dict[str, Any] = {
        "output": "out",
        "sources": [{"name": "s", "kind": "folder", "root": "clips"}],
        "stages": fakes.STAGES,
        "frames": fakes.FRAMES,
        "thresholds": {"min_side": 64, **fakes.THRESHOLDS},
        "execution": {"workers": 1, "max_failed_fraction": 0.2},
    }
    (tmp_path / "sources.yaml").write_text(yaml.safe_dump(raw))
    planned = placement.plan_groups(load(tmp_path / "sources.yaml"), *cluster_size())
    assert [(g.stages[0], g.actors, g.gpus) for g in planned] == [
        ("header", 1, 0),
        ("quality", 1, 0.6),
        ("motion", 1, 0.73),
    ]
    assert main([str(tmp_path / "sources.yaml")]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["kept"] == 8

    found = [json.loads(path.read_text()) for path in notes.iterdir()]
    by_stage = {stage: [note for note in found if note["stage"] == stage] for stage in ("quality", "text", "motion")}
    assert {stage: len(of) for stage, of in by_stage.items()} == {"quality": 1, "text": 1, "motion": 1}
    (screening,), (lettering,), (flow,) = by_stage.values()
    assert screening["pid"] == lettering["pid"] != flow["pid"], "a group is one process"
    assert screening["gpus"] == lettering["gpus"]
    assert sorted([*screening["gpus"], *flow["gpus"]]) == ["0", "1"], "the two do not fit one"
    assert {note["device"] for note in found} == {"cuda:0"}

    times = {name: entry["gpu_seconds"] for name, entry in summary["stages"].items()}
    assert times["header"] is None
    assert times["cut"] is None
    assert times["quality"] is not None
    assert times["motion"] is not None

    # Ray gathers them from the driver now and then
    deadline = time.monotonic() + 60
    while ("clips_measured_total", "caption") not in (shown := metrics()) and time.monotonic() < deadline:
        time.sleep(0.5)
    measured = {of: value for (name, of), value in shown.items() if name == "clips_measured_total"}
    assert measured == {name: entry["measured"] for name, entry in summary["stages"].items()} | {"quality": 8.0}
    assert shown["clips_failed_total", "quality"] == 1
    assert shown["stage_seconds_total", "header"] > 0
    assert shown["stage_gpu_seconds_total", "motion"] > 0
    assert ("stage_gpu_seconds_total", "header") not in shown
    waiting = {of: value for (name, of), value in shown.items() if name == "clips_in_flight"}
    assert waiting == {group.name: 0.0 for group in planned}
