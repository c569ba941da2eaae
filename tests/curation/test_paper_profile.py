"""The paper profile from end to end: tiny random models where real weights are lacking, the real face detector, and
captions from a local server that speaks OpenAI's protocol."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from benchmarks import upstream_layouts
from curation.run import main
from manifests.schema import INDEXED
from manifests.shards import metadata
from stages import weights
from stages.caption_text import ASK_CAPTION

CLIPS = ("driving_d10", "driving_d11", "driving_d12", "driving_d14", "source_s13", "source_s32")


@dataclass
class Paper:
    """A folder with sources.yaml; `run` curates with changes to it and says what each stage measured."""

    folder: Path
    raw: dict[str, Any]

    def run(self, *options: str, caption: dict[str, Any] | None = None) -> dict[str, int]:
        raw = self.raw | {"stages": self.raw["stages"] | ({"caption": caption} if caption else {})}
        (self.folder / "sources.yaml").write_text(yaml.safe_dump(raw))
        assert main([str(self.folder / "sources.yaml"), *options]) == 0
        stages = json.loads((self.folder / "out" / "summary.json").read_text())["stages"]
        return {name: entry["measured"] for name, entry in stages.items() if entry["measured"]}


@pytest.fixture(scope="module")
def captioner() -> Iterator[str]:
    """The address of a server that describes every clip alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question = body["messages"][0]["content"][-1]["text"]
            answer = "A person talks to the camera." if ASK_CAPTION in question else "talking"
            choice = {"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
            text = json.dumps({"choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
        thread.join()


def write_weights(folder: Path) -> None:
    """Random models of the published layouts: CLIP tiny, the others of full size, for their code fixes it."""
    from tests.stages.test_insightface_face import save_recogniser

    layouts = {
        "clip/RN50.pt": upstream_layouts.tiny_clip_resnet(),
        "clip/ViT-L-14.pt": upstream_layouts.tiny_clip_vit(),
        "easyocr/craft_mlt_25k.pth": upstream_layouts.craft(),
        "easyocr/english_g2.pth": upstream_layouts.crnn(97),
        weights.WEIGHTS["raft_small"].file: upstream_layouts.raft_small(),
    }
    for file, layout in layouts.items():
        upstream_layouts.own(upstream_layouts.write(layout, folder / file, seed=1), folder)
    save_recogniser(folder / "insightface" / "w600k_r50.onnx", seed=1)
    upstream_layouts.own(folder / "insightface" / "w600k_r50.onnx", folder)


@pytest.fixture(scope="module")
def paper(shared: Path, captioner: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paper]:
    for library in ("pyiqa", "easyocr", "insightface", "open_clip", "torchvision"):
        pytest.importorskip(library)
    from curation.cluster import shutdown

    folder = tmp_path_factory.mktemp("paper")
    write_weights(folder / "weights")
    (folder / "clips").mkdir()
    for name in CLIPS:
        shutil.copy(shared / "clips" / f"{name}.mp4", folder / "clips")
    raw = {
        "output": "out",
        "profile": "paper",
        "sources": [{"name": "talks", "kind": "folder", "root": "clips"}],
        "stages": {
            "face": {"detector": "scrfd_2.5g_kps"},
            "motion": {"model": "raft_small"},
            "caption": {"engine": "openai", "base_url": captioner, "model": "any"},
        },
        # random models judge at random
        "thresholds": {"min_quality": 0, "max_text_area": 1, "min_face_similarity": 0},
        "frames": {"count": 4, "size": 256},
        "execution": {"workers": 1, "deadline_s": 60},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(weights.VARIABLE, f"{folder / 'weights'}:{shared / 'weights'}")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield Paper(folder, raw)
        shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_column_is_filled_and_it_resumes_and_a_changed_caption_engine_measures_captions_alone(
    paper: Paper,
) -> None:
    stages = ["header", "decode", "cut", "hash", "quality", "text", "face", "crop", "embedding", "motion", "caption"]
    assert paper.run("--limit", "2") == dict.fromkeys(stages, 2)
    assert paper.run() == dict.fromkeys(stages, len(CLIPS) - 2)
    rows = pd.read_parquet(paper.folder / "out" / "manifests")
    assert sorted(rows["path"]) == [f"{name}.mp4" for name in CLIPS]
    of_indexes = {*INDEXED, "source_span", "source_box", "folder_fps"}  # what a source's index says; a folder has none
    empty = [name for name in rows.columns if rows[name].isna().any() and name not in of_indexes]
    assert empty in ([], ["camera_motion"]), "a random flow may show no ground"
    assert set(rows["caption"]) == {"A person talks to the camera."}
    assert set(rows["action"]) == {"talking"}
    assert rows["quality_score"].between(0.001, 0.999).all()
    assert rows["quality_score"].nunique() == rows["motion_intensity"].nunique() == len(CLIPS)
    assert (rows["face_count"] == 1).all()
    assert (rows["face_fraction"] == 1).all()
    for name, width in (("face_embedding", 512), ("image_embedding", 48), ("frame_embedding", 48)):
        np.testing.assert_allclose(np.linalg.norm(np.stack(rows[name].to_list()), axis=1), np.ones(6), atol=1e-4)
        assert len(rows[name][0]) == width
    assert len(rows["face_landmarks"][0]) == 4
    engines = metadata(paper.folder / "out")["engines"]
    assert "scrfd_2.5g_kps=32d20c77b9e2dc1d" in engines["face"]["version"]
    assert engines["motion"]["params"]["model"] == "raft_small"

    assert paper.run() == {}
    assert paper.run(caption={"engine": "kinematic"}) == {"caption": len(CLIPS)}
    assert set(pd.read_parquet(paper.folder / "out" / "manifests")["caption"]).isdisjoint(rows["caption"])


def test_a_run_without_its_model_files_stops_before_the_first_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyiqa")
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path / "weights"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HUMAN_MOTION_OFFLINE", "1")
    (tmp_path / "clips").mkdir()
    raw = {
        "output": "out",
        "profile": "paper",
        "sources": [{"name": "a", "kind": "folder", "root": "clips"}],
        "stages": {"caption": {"engine": "kinematic"}},
    }
    path = tmp_path / "sources.yaml"
    path.write_text(yaml.safe_dump(raw))
    assert main([str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    names = ["clip-rn50", "craft_mlt_25k", "english_g2", "det_10g", "w600k_r50", "clip-vit-l-14", "raft_large"]
    assert [line.split(":")[0].strip() for line in lines] == ["model files", *names]
    assert all(str(tmp_path / "weights") in line for line in lines[1:])
    assert not (tmp_path / "out").exists()
    assert main([str(path), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name}: missing (" in shown for name in names)


def test_a_run_without_its_libraries_says_how_to_install_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from importlib import metadata as installed

    real = installed.version

    def without_pyiqa(name: str) -> str:
        if name == "pyiqa":
            raise installed.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(installed, "version", without_pyiqa)
    (tmp_path / "clips").mkdir()
    raw = {
        "output": "out",
        "sources": [{"name": "a", "kind": "folder", "root": "clips"}],
        "stages": {"quality": {"engine": "clip_iqa"}},
    }
    (tmp_path / "sources.yaml").write_text(yaml.safe_dump(raw))
    assert main([str(tmp_path / "sources.yaml")]) == 2
    assert capsys.readouterr().err == "pyiqa is not installed: pip install 'human-motion[paper]'\n"
