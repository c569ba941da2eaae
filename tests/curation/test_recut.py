"""From a source's index to a manifest row, and from the row back to the very frames: span, box and crop are enough."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from curation.run import main
from stages.decode import Decoder
from stages.frames import FrameSpec
from tests.curation import fakes
from tests.curation.layouts import VIDEO, celebv_hq, entry, vfhq_meta, write_frames

CLIP = "Clip+someone+P0+C0+F0-110"


def test_a_clip_is_cut_again_from_its_row(tmp_path: Path, shared: Path) -> None:
    box = {"top": 0.1, "bottom": 0.9, "left": 0.3, "right": 0.8}
    video = shared / "clips" / "source_s32.mp4"
    celebv_hq(tmp_path / "hq", {"a_0": entry(0.5, 5.5, bbox=box)}, {f"{VIDEO}.mp4": video}, "raw")
    vfhq_meta(tmp_path / "vfhq", CLIP, fps=25.0)
    write_frames(tmp_path / "vfhq" / "processed" / CLIP, video, 100, (128, 72))
    fakes.install()
    raw: dict[str, Any] = {
        "output": "out",
        "sources": [
            {"name": "hq", "kind": "celebv_hq", "root": "hq", "raw": True},
            {"name": "vfhq", "kind": "vfhq", "root": "vfhq"},
        ],
        "stages": {name: {"engine": "fake"} for name in ("quality", "text", "face")},
        "frames": {"size": 64},
        "thresholds": {"min_side": 64, **fakes.THRESHOLDS},
    }
    (tmp_path / "sources.yaml").write_text(yaml.safe_dump(raw))
    assert main([str(tmp_path / "sources.yaml"), "--runner", "in-process"]) == 0
    rows = pd.read_parquet(tmp_path / "out" / "manifests").set_index("source")
    assert sorted(rows.index) == ["hq", "vfhq"]
    hq, vfhq = rows.loc["hq"], rows.loc["vfhq"]
    assert list(hq["source_span"]) == [0.5, 5.5]
    np.testing.assert_allclose(hq["source_box"], [0.28, 0.08, 0.82, 0.92])
    assert vfhq["folder_fps"] == 25.0
    assert vfhq["source_span"] is None
    with Decoder(60) as decoder:
        for row, root in ((hq, tmp_path / "hq"), (vfhq, tmp_path / "vfhq")):
            path, spec = str(root / row["path"]), FrameSpec(size=64, window="first")
            folder_fps = None if np.isnan(row["folder_fps"]) else row["folder_fps"]
            header = decoder.header(path, "video", folder_fps)
            whole = decoder.frames(path, "video", FrameSpec(size=64, count=2, fps=4), header)
            assert whole.images.shape[0] == 2
            span = (row["start_s"], row["start_s"] + row["duration_s"] + 1 / row["fps"])
            cut = None if row["source_box"] is None else tuple(row["source_box"])
            again = decoder.frames(path, "video", spec, header, span, cut)
            first = 0.5 if row is hq else 0.0
            length = 5.0 if row is hq else 4.0
            np.testing.assert_allclose(again.times_s, first + (length - 3.75) / 2 + np.arange(16) / 4, atol=0.04)
            assert again.through(row["crop"]).shape == (16, 64, 64, 3)
            if cut is not None:
                assert again.native == (round(0.82 * 1280) - round(0.28 * 1280), round(0.92 * 720) - round(0.08 * 720))
