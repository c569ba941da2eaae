"""Made measurements: rows as a run would have stored them, for tests and benchmarks of what comes after measuring."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from curation.config import Config
from curation.config_file import validate
from curation.fingerprint import describe_engines
from curation.store import Recorder, write_listing
from curation.verdicts import Measurements, Retry
from stages.clip import Clip

BOXES = [[180.0, 90.0, 300.0, 210.0]] * 4
GOOD: dict[str, dict[str, Any]] = {
    "header": {
        "start_s": 1.0,
        "duration_s": 3.75,
        "file_duration_s": 6.0,
        "fps": 25.0,
        "width": 512,
        "height": 512,
        "short_side": 512,
        "frame_count": 150,
        "missing_frames": 0,
        "codec": "h264",
        "rotation": 0,
    },
    "decode": {"decoder": "decord", "grid_fps": 4.0, "grid_frames": 16, "grid_size": 512},
    "cut": {"cut_score": 0.01, "cut_frame": 3},
    "hash": {},
    "quality": {"quality_score": 0.5, "quality_frame": 8},
    "text": {"text_area": 0.0, "text_frame": 0},
    "face": {
        "face_count": 1,
        "face_count_frame": 0,
        "face_fraction": 1.0,
        "face_score": 1.5,
        "face_frames": [0, 5, 10, 15],
        "frame_boxes": BOXES,
    },
    "crop": {"crop": [0.0, 0.0, 512.0, 512.0], "face_in_crop": 1.0, "face_boxes": BOXES},
    "embedding": {},
    "motion": {
        "motion_intensity": 5.0,
        "camera_motion": 0.1,
        "face_motion": [[0.0] * 10] * 15,
        "flow_path": "flows/f/aa/aa.npz",
    },
    "caption": {"caption": "a person", "action": "holding still"},
}


def config(tmp_path: Path, **changes: Any) -> Config:
    """A configuration of one source, a folder below `tmp_path`."""
    (tmp_path / "clips").mkdir(exist_ok=True)
    sources = [{"name": "s", "kind": "folder", "root": str(tmp_path / "clips")}]
    raw: dict[str, Any] = {"output": str(tmp_path / "out"), "sources": sources}
    return validate(raw | changes, "sources.yaml", tmp_path)


def clip(name: str, **changes: Any) -> Clip:
    """A clip as the folder source lists it."""
    fields: dict[str, Any] = {"source": "s", "path": name, "kind": "video", "stamp": "1-1"}
    return Clip(**(fields | changes))


class Made:
    """An output folder with a listing and measurements. `measure` adds one clip's rows, good ones unless changed."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.output = Path(config.output)
        self.engines = describe_engines(config)
        stages = {s.name: (s, self.engines[s.name]["fingerprint"]) for s, _ in config.stage_table()}
        self.recorder = Recorder(self.output, stages, rows=1_000_000)

    def listing(self, clips: Iterable[Clip]) -> None:
        write_listing(self.output, clips)

    def measure(self, clip: Clip, only: Iterable[str] = tuple(GOOD), **changes: dict[str, Any]) -> None:
        """Rows for the stages `only`; `changes` gives columns, or {"error": ..., "transient": ...}, by stage."""
        key = {"clip_id": clip.clip_id, "stamp": clip.stamp}
        rows = {}
        for stage in only:
            change = changes.get(stage, {})
            rows[stage] = {**key, **change} if "error" in change else {**key, **GOOD[stage], **change}
        for stage, row in rows.items():
            self.recorder.hold(stage, row)

    def read(self, retry: Retry = "nothing") -> Measurements:
        """The measurements as they stand on disk."""
        self.recorder.flush()
        return Measurements(self.output, self.config, self.engines, retry)


def random_changes(rng: random.Random) -> dict[str, dict[str, Any]]:
    """Columns of a clip that may pass or break any rule, or fail anywhere."""
    changes: dict[str, dict[str, Any]] = {
        "header": {"short_side": rng.choice([480, 512, 720]), "file_duration_s": rng.choice([3.0, 3.75, 9.0])},
        "quality": {"quality_score": rng.choice([0.1, 0.3, 0.9])},
        "text": {"text_area": rng.choice([0.0, 0.02, 0.021, 0.5])},
        "face": {"face_count": rng.choice([0, 1, 2]), "face_score": rng.choice([0.2, 1.5])},
        "motion": {"motion_intensity": rng.uniform(0, 60), "camera_motion": rng.uniform(0, 9)},
    }
    if rng.random() < 0.1:
        changes[rng.choice(list(GOOD))] = {"error": "broken", "transient": rng.random() < 0.5}
    return changes
