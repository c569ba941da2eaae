"""Caption engines through the pipeline, in a tiny size with random weights: answers of no use end as failed clips."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

pytest.importorskip("torch", reason="the caption models need torch")
pytest.importorskip("transformers", reason="the caption models need transformers")
pytest.importorskip("sentencepiece", reason="Vicuna's tokenizer needs sentencepiece")

from curation.run import main
from tests.curation import fakes
from tests.stages.test_image_text import llava  # noqa: F401 (a fixture)
from tests.stages.test_minigpt4 import tiny, untrained  # noqa: F401 (fixtures)


def curate(folder: Path, caption: dict[str, Any]) -> tuple[dict[str, int], pd.DataFrame]:
    """What each stage measured, and the rows of rejected/."""
    fakes.install()
    if not (folder / "clips").exists():
        fakes.write_clips(folder / "clips", "a-1.mp4", "b-2.mp4")
    raw = {
        "output": "out",
        "sources": [{"name": "s", "kind": "folder", "root": "clips"}],
        "stages": fakes.STAGES | {"caption": caption},
        "frames": fakes.FRAMES,
        "thresholds": {"min_side": 64, **fakes.THRESHOLDS},
        "execution": {"max_failed_fraction": 1.0},
    }
    (folder / "sources.yaml").write_text(yaml.safe_dump(raw))
    assert main([str(folder / "sources.yaml"), "--runner", "in-process"]) == 0
    stages = json.loads((folder / "out" / "summary.json").read_text())["stages"]
    measured = {name: entry["measured"] for name, entry in stages.items() if entry["measured"]}
    return measured, pd.read_parquet(folder / "out" / "rejected")


def all_failed(rows: pd.DataFrame) -> None:
    assert sorted(rows["path"]) == ["a-1.mp4", "b-2.mp4"]
    assert set(rows["status"]) == {"failed"}
    assert set(rows["stage"]) == {"caption"}
    assert rows["error"].str.startswith("no usable description in 2 answers: the last ").all()
    assert rows["caption"].isna().all()
    assert rows["action"].isna().all()


def test_minigpt4_with_random_weights_ends_in_failed_clips_and_another_engine_measures_captions_alone(
    tmp_path: Path,
    untrained: Path,  # noqa: F811
    tiny: Callable[[Path], None],  # noqa: F811
) -> None:
    tiny(untrained)
    caption = {"engine": "minigpt4", "max_new_tokens": 16, "retries": 1}
    measured, rows = curate(tmp_path, caption)
    assert set(measured.values()) == {2}
    assert "caption" in measured
    all_failed(rows)
    assert curate(tmp_path, caption)[0] == {}, "what failed for good is not tried again"
    assert curate(tmp_path, {"engine": "kinematic"})[0] == {"caption": 2}
    kept = pd.read_parquet(tmp_path / "out" / "manifests")
    assert set(kept["action"]) == {"holding still"}


def test_an_image_text_model_with_random_weights_ends_in_failed_clips(
    tmp_path: Path,
    llava: Path,  # noqa: F811
) -> None:
    caption = {"engine": "image_text", "model": str(llava), "view": "middle", "max_new_tokens": 16, "retries": 1}
    measured, rows = curate(tmp_path, caption)
    assert measured["caption"] == 2
    all_failed(rows)
