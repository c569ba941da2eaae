"""The groups that are planned for GPUs, as Ray places them: on two GPUs that are only counted, with fake engines that
note where they are set up."""

from __future__ import annotations

import json
import logging
import os
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
        runtime_env={
            "worker_process_setup_hook": "tests.curation.test_gpu_actors.install",
            "env_vars": {"PYTHONPATH": str(fakes.ROOT), NOTES: str(folder)},
        },
    )
    yield folder
    shutdown()


def test_groups_land_on_gpus_as_planned(tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    # Of the default 24 GiB: (0.6 + 12 + 2 x 0.5) / 22.8 and (0.6 + 15 + 2 x 0.5) / 22.8, rounded up.
    footprints = {
        ("quality", "fake"): Footprint(12.0, 0.5, batch=2),
        ("motion", "fake"): Footprint(15.0, 0.5, batch=2),
    }
    monkeypatch.setattr(placement, "FOOTPRINTS", footprints)
    names = [f"a-{i}.mp4" for i in range(8)]
    fakes.write_clips(tmp_path / "clips", *names)
    raw: dict[str, Any] = {
        "output": "out",
        "sources": [{"name": "s", "kind": "folder", "root": "clips"}],
        "stages": fakes.STAGES,
        "frames": fakes.FRAMES,
        "thresholds": {"min_side": 64, **fakes.THRESHOLDS},
        "execution": {"workers": 1},
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
