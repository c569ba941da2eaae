"""The benchmark of the paper's engines, in its small form on a CPU: that its figures are there and fit each other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages import weights

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_small_form_captions_every_clip_and_holds_the_pipeline_against_the_bare_networks(
    shared: Path, tmp_path: Path
) -> None:
    for library in ("pyiqa", "easyocr", "insightface", "open_clip", "torchvision", "transformers", "sentencepiece"):
        pytest.importorskip(library)
    shutil.copy(shared / "clips" / "source_s32.mp4", tmp_path)
    env = os.environ | {weights.VARIABLE: str(shared / "weights"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.gpu", "--small", "--device", "cpu", "--clips", "1", "--repeat", "1"]
    command += ["--pipeline", str(tmp_path), "--copies", "4"]
    run = subprocess.run(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    figures = json.loads(run.stdout.splitlines()[-1])

    engines = figures["engines"]
    assert list(engines) == ["quality", "text", "face", "embedding", "motion", "caption"]
    for of in engines.values():
        assert of["kept_of_bare"] == pytest.approx(of["clips_per_s"] / of["bare_clips_per_s"], rel=0.01)
        if "tflop_per_clip" in of:  # not of the faces, whose networks are onnxruntime's
            used = of["tflop_per_clip"] * of["clips_per_s"]
            assert of["of_matmul_peak"] == pytest.approx(used / figures["peaks"]["matmul_tflops"], rel=0.01)
    assert "tflop_per_clip" in engines["motion"]
    assert engines["caption"]["of_copy_peak"] > 0

    whole = figures["pipeline"]
    assert (whole["clips"], whole["captioned"], whole["rejected"], whole["failed"]) == (4, 4, 0, {})
    assert {"decode", *engines} <= whole["stage_seconds_per_clip"].keys()
    assert whole["gpu_seconds_per_clip"] == {}
    bare = whole["devices"] / sum(1 / of["bare_clips_per_s"] for of in engines.values())
    assert whole["kept_of_bare"] == pytest.approx(whole["clips_per_s"] / bare, rel=0.01)
    assert whole["device_held"] > 0
    assert 0 < whole["device_busy"] <= 1.05
    assert whole["peak_memory_gb"] > 0.5
