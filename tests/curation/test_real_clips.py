"""The whole embedded pipeline, through Ray, on the real clips: the verdicts that a person gives."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from curation.cluster import shutdown
from curation.run import main
from manifests.shards import metadata

KEPT = ["driving_d10", "driving_d11", "driving_d12", "driving_d14", "source_s13", "source_s32"]
RESOLUTION = ["driving_d6", "driving_d9", "driving_d18", "driving_d19", "driving_d20", "source_s20"]


@pytest.fixture(scope="module")
def run(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run's folder, with sources.yaml and out/."""
    folder = tmp_path_factory.mktemp("real")
    raw: dict[str, Any] = {"output": "out", "sources": []}
    raw["sources"] = [{"name": "talks", "kind": "folder", "root": str(shared / "clips")}]
    (folder / "sources.yaml").write_text(yaml.safe_dump(raw))
    assert main([str(folder / "sources.yaml")]) == 0
    yield folder
    shutdown()


def kept(run: Path) -> pd.DataFrame:
    frame = pd.read_parquet(run / "out" / "manifests")
    return frame.set_index(frame["path"].str.removesuffix(".mp4"))


def rejected(run: Path) -> dict[str, str]:
    frame = pd.read_parquet(run / "out" / "rejected")
    assert set(frame["status"]) <= {"rejected"}
    return dict(zip(frame["path"].str.removesuffix(".mp4"), frame["reason"], strict=True))


def test_thirteen_of_thirteen_verdicts(run: Path) -> None:
    assert sorted(kept(run).index) == KEPT
    assert rejected(run) == {"driving_d0": "too_short", **dict.fromkeys(RESOLUTION, "resolution")}


def test_the_dancers_move_most_and_the_still_head_least(run: Path) -> None:
    motion = kept(run)["motion_intensity"].sort_values()
    assert motion.index[0] == "driving_d14"
    assert set(motion.index[-2:]) == {"driving_d12", "source_s13"}
    assert (motion.iloc[-2:] > 20).all()
    capped = kept(run)["motion_intensity_capped"]
    assert (capped == kept(run)["motion_intensity"].clip(upper=20)).all()
    assert (capped[["driving_d12", "source_s13"]] == 20).all()


def test_every_kept_clip_is_ready_to_train_on(run: Path) -> None:
    rows = kept(run)
    for column in ("crop", "face_boxes", "caption", "action", "motion_bin", "sample_weight", "split", "quality_score"):
        assert rows[column].notna().all(), column
    assert (rows["face_count"] == 1).all()
    assert rows["sample_weight"].sum() == pytest.approx(len(rows))
    for path in rows["flow_path"]:
        assert (run / "out" / path).is_file()
    crop = rows.loc["source_s13", "crop"]
    assert (crop[2] - crop[0], crop[3] - crop[1]) == (720, 720)
    assert crop[1] < 180  # moved up from the centre to hold the head
    assert metadata(run / "out")["engines"]["face"]["engine"] == "dlib"


def test_lower_thresholds_keep_the_small_clips(run: Path) -> None:
    command = [str(run / "sources.yaml"), "--set", "thresholds.min_side=480", "--output", str(run / "out")]
    assert main(command) == 0
    assert sorted(kept(run).index) == sorted([*KEPT, *RESOLUTION])
    assert rejected(run) == {"driving_d0": "too_short"}


def test_the_plain_centre_crop_loses_the_dancers_head(run: Path) -> None:
    assert main([str(run / "sources.yaml"), "--set", "frames.crop=center"]) == 0
    assert rejected(run)["source_s13"] == "face_out_of_frame"
    assert sorted(kept(run).index) == [name for name in KEPT if name != "source_s13"]
