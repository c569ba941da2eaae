"""Caption engines through the pipeline, in a tiny size: usable answers become captions, others end as failed clips."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
import yaml

pytest.importorskip("torch", reason="the caption models need torch")
pytest.importorskip("transformers", reason="the caption models need transformers")
pytest.importorskip("sentencepiece", reason="Vicuna's tokenizer needs sentencepiece")

from curation.cluster import shutdown
from curation.run import main
from stages import weights
from tests.curation import fakes
from tests.media import write_video
from tests.stages.test_image_text import llava  # noqa: F401 (a fixture)
from tests.stages.tiny_minigpt4 import BLUE, RED, engine_of, tiny, trained, untrained  # noqa: F401 (fixtures)


def curate(folder: Path, caption: dict[str, Any], runner: str = "in-process") -> tuple[dict[str, int], pd.DataFrame]:
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
    assert main([str(folder / "sources.yaml"), "--runner", runner]) == 0
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


@pytest.mark.slow
def test_minigpt4s_answers_become_the_captions_of_their_clips_through_ray(
    tmp_path: Path,
    trained: Path,  # noqa: F811
    tiny: Callable[[Path], None],  # noqa: F811
) -> None:
    tiny(trained)
    # With the image side as a folder of Hugging Face's, its sizes stand beside it, and a worker needs no patch.
    engine_of()._model.save_pretrained(tmp_path / "blip2")
    (tmp_path / "clips").mkdir()
    colours = {f"{name}-{i}.mp4": colour for i in range(3) for name, colour in (("blue", BLUE), ("red", RED))}
    for name, colour in colours.items():

        def plain(number: int, width: int, height: int, colour: tuple[int, int, int] = colour) -> np.ndarray:
            return np.full((height, width, 3), colour, np.uint8)

        write_video(tmp_path / "clips" / name, frames=20, size=(64, 64), fps=10, picture=plain)
    env = fakes.RUNTIME_ENV["env_vars"] | {weights.VARIABLE: str(trained), "OMP_NUM_THREADS": "1"}
    ray.init(
        num_cpus=2,
        log_to_driver=False,
        include_dashboard=False,
        logging_level=logging.ERROR,
        runtime_env=fakes.RUNTIME_ENV | {"env_vars": env},
    )
    try:
        caption = {"engine": "minigpt4", "blip2": str(tmp_path / "blip2"), "max_new_tokens": 24}
        measured, rejected = curate(tmp_path, caption, "ray")
    finally:
        shutdown()
    assert measured["caption"] == 6
    assert rejected.empty
    rows = pd.read_parquet(tmp_path / "out" / "manifests").set_index("path")
    expected = {
        BLUE: ["A man is talking in a blue room.", "talking"],
        RED: ["A woman smiles at the camera.", "smiling at the camera"],
    }
    assert {name: rows.loc[name, ["caption", "action"]].to_list() for name in rows.index} == {
        name: expected[colour] for name, colour in colours.items()
    }
