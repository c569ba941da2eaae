"""Long videos: shots found, windows inside them, clips of their own; a broken file is one failed clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
import yaml

from curation.config import Windows
from curation.run import main
from curation.windows import cut
from stages.frames import FrameSpec
from tests.curation import fakes
from tests.media import write_video

SPEC = FrameSpec()  # 16 frames at 4 fps
STEP = 3.75 + 1 / 25


def windows(policy: str, cuts: list[float], end: float = 20.0, sharp: list[float] | None = None, **more: Any) -> Any:
    chosen = Windows.model_validate({"policy": policy, **more})
    return cut(chosen, SPEC, (0.0, end), 25.0, cuts, sharp or [])


def test_windows_lie_inside_shots() -> None:
    assert windows("first", []) == [(0.0, 3.79)]
    assert windows("all", [9.0]) == [
        (0.0, 3.79),
        (3.79, 7.58),
        (9.0, 12.79),
        (12.79, 16.58),
    ]
    assert windows("first", [2.0, 9.0]) == [(2.0, 5.79), (9.0, 12.79)]
    assert windows("all", [3.79], end=7.58) == [(3.79, 7.58)], "the frame before a cut is left out"
    assert windows("first", [], length_s=8.0) == [(0.0, 8.0)]


def test_what_is_too_short_for_a_window_is_still_one_clip() -> None:
    assert windows("all", [1.0, 3.0], end=4.0) == [(1.0, 2.98)]
    assert windows("all", [], end=2.0) == [(0.0, 2.0)]
    assert windows("stride", [], end=2.0) == [(0.0, 2.0)]


def test_the_longest_shot_alone_or_the_whole_file() -> None:
    assert windows("longest_shot", [4.0, 14.0]) == [(4.0, 13.98)]
    assert windows("longest_shot", []) == [(0.0, 20.0)]


def test_the_sharpest_window_of_each_shot() -> None:
    sharp = [1.0] * 80
    sharp[24:40] = [9.0] * 16  # from 6 s to 10 s
    ((start, _),) = windows("best", [], sharp=sharp)
    assert 5.0 <= start <= 7.0
    assert [s for s, _ in windows("best", [10.0], sharp=sharp)][1] == 10.0


def test_windows_by_stride_do_not_look_at_cuts() -> None:
    assert [start for start, _ in windows("stride", [9.0], stride_s=5.0)] == [0.0, 5.0, 10.0, 15.0]
    assert [start for start, _ in windows("stride", [], end=3 * STEP)] == [0.0, 3.79, 7.58]


def pictures(shared: Path, names: list[tuple[str, int]]) -> list[np.ndarray]:
    """Frames of real clips one after the other, 25 fps, uint8 RGB 160 x 160."""
    found: list[np.ndarray] = []
    for name, count in names:
        with av.open(str(shared / "clips" / f"{name}.mp4")) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index == count:
                    break
                found.append(frame.reformat(160, 160, format="rgb24").to_ndarray())
    return found


@pytest.fixture
def long_videos(tmp_path: Path, shared: Path) -> Path:
    """A folder with one video of three shots (5, 2 and 6 s), a broken one and a still."""
    frames = pictures(shared, [("driving_d10", 125), ("driving_d12", 50), ("driving_d14", 150)])
    folder = tmp_path / "clips"
    folder.mkdir()
    write_video(folder / "long.mp4", len(frames), (160, 160), 25, picture=lambda i, w, h: frames[i])
    whole = (folder / "long.mp4").read_bytes()
    (folder / "torn.mp4").write_bytes(whole[: len(whole) // 2])
    import PIL.Image

    PIL.Image.fromarray(frames[0]).save(folder / "still.png")
    return folder


def run(folder: Path, *options: str, **windows: Any) -> pd.DataFrame:
    """Curate with fake models in this process; all clips by path and span."""
    fakes.install()
    raw = {
        "output": "out",
        "sources": [{"name": "s", "kind": "folder", "root": "clips", "windows": windows}],
        "stages": {name: {"engine": "fake"} for name in ("quality", "text", "face")},
        "frames": {"size": 64},
        "thresholds": {"min_side": 64, **fakes.THRESHOLDS},
        "execution": {"max_failed_fraction": 1.0},
    }
    (folder.parent / "sources.yaml").write_text(yaml.safe_dump(raw))
    assert main([str(folder.parent / "sources.yaml"), "--runner", "in-process", *options]) == 0
    out = folder.parent / "out"
    kept = pd.read_parquet(out / "manifests").assign(status="kept")
    rows = pd.concat([kept, pd.read_parquet(out / "rejected")])
    rows["start"] = [None if span is None else round(float(span[0]), 3) for span in rows["source_span"]]
    return rows.sort_values(["path", "start"])


def test_shots_of_real_clips_are_cut_into_clips(long_videos: Path) -> None:
    rows = run(long_videos, policy="all")
    long = rows[rows["path"] == "long.mp4"]
    assert list(long["start"]) == [0.0, 7.0]
    assert list(long["status"]) == ["kept", "kept"]
    assert long["clip_id"].nunique() == 2
    assert (long["cut_score"] < 0.05).all()
    assert (long["duration_s"] == 3.75).all()
    torn = rows[rows["path"] == "torn.mp4"].iloc[0]
    assert (torn["status"], torn["stage"]) == ("failed", "listing")
    assert torn["error"].startswith("its shots cannot be found: ")
    assert list(rows[rows["path"] == "still.png"]["status"]) == ["kept"]
    before = (long_videos.parent / "out" / "manifests" / "part-00000.parquet").read_bytes()
    shots = sorted((long_videos.parent / "out" / "windows" / "s" / "measurements" / "shots").rglob("*.parquet"))
    run(long_videos, policy="all")
    assert shots == sorted((long_videos.parent / "out" / "windows" / "s").rglob("shots/*/*.parquet")), "not found anew"
    assert (long_videos.parent / "out" / "manifests" / "part-00000.parquet").read_bytes() == before


def test_the_longest_shot_instead_of_a_clip_with_a_cut(long_videos: Path) -> None:
    whole = run(long_videos, policy="stride", stride_s=100.0, length_s=9.0)
    assert list(whole[whole["path"] == "long.mp4"]["reason"]) == ["scene_cut"]
    longest = run(long_videos, policy="longest_shot")
    row = longest[longest["path"] == "long.mp4"].iloc[0]
    assert (row["status"], row["start"]) == ("kept", 7.0)
    assert row["start_s"] == pytest.approx(7.0 + (6.0 - 3.75) / 2, abs=0.05)
