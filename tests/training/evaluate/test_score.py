"""`score` on small videos and random weights: resuming, sharing out, failures, tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("open_clip")

from stages import weights
from tests.training.evaluate.made import listed, video
from training.evaluate.commands import main
from training.evaluate.tables import read_summary
from training.metrics import dover

CHEAP = ["--metrics", "clip_i", "clip_t", "control"]


@pytest.fixture
def small_dover(monkeypatch: pytest.MonkeyPatch) -> None:
    """DOVER on views of 4 frames of 64 x 64: the network's full views take minutes on a CPU."""
    for name, value in {"CLIP": 4, "CLIPS": 1, "FRAMES": 4, "GRID": 2, "SIDE": 64}.items():
        monkeypatch.setattr(dover, name, value)


def test_all_metrics_of_a_folder(
    tmp_path: Path,
    at_weights: Path,
    small_dover: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from training.metrics.face_similarity import FaceSimilarity

    # Random detectors find no face; here all of a picture is one.
    monkeypatch.setattr(
        FaceSimilarity, "face", lambda self, frame: frame[:64, :64].repeat(3, 0).repeat(3, 1)[:160, :160]
    )
    folder = listed(tmp_path / "ours", {0.0: 0.0, 10.0: 1.0, 20.0: 2.0})
    assert main(["score", str(folder), "--name", "tiny"]) == 0
    printed = capsys.readouterr().out
    summary = read_summary(folder / "evaluation")
    found = summary["metrics"]
    assert {name: of["videos"] for name, of in found.items()} == dict.fromkeys(found, 3)
    assert len(found) == 7
    for metric in found.values():
        values = [v["scores"][name] for v in summary["videos"].values() for name, m in found.items() if m is metric]
        assert metric["mean"] == pytest.approx(sum(values) / 3)
        assert len(metric["definition"]) > 100
    assert found["motion_smoothness"]["models"][0]["licence"] == "non-commercial: CC BY-NC 4.0 (MCG-NKU/AMT)"
    assert len(found["clip_i"]["models"][0]["sha256"]) == 64
    assert found["control"]["agreement"]["spearman"] == 1.0  # faster ones measure as faster
    assert 0 < found["dover"]["mean"] < 1

    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    assert rows[0][1:3] == ["Dover Score", "Motion Smoothness"]
    assert rows[6] == ["| MotionCharacter (paper)", "0.869", "0.998", "0.449", "0.633", "0.227", "0.609", " |"]
    assert rows[7][0] == "| tiny"
    assert rows[7][4] == f"{found['clip_i']['mean']:.3f}"
    assert "tiny, control over 3 videos: Spearman 1.000" in printed
    assert (folder / "evaluation" / "table.md").read_text() in printed
    assert (folder / "evaluation" / "control.png").stat().st_size > 5000


def test_what_is_measured_is_not_measured_again(
    tmp_path: Path, at_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.metrics.control import Control

    folder = listed(tmp_path / "ours", {0.0: 0.0, 10.0: 1.0, 20.0: 2.0})
    assert main(["score", str(folder), *CHEAP]) == 0
    kept = {p: p.stat().st_mtime_ns for p in (folder / "evaluation" / "measured").rglob("*.json")}
    assert len(kept) == 9
    whole = (folder / "evaluation" / "scores.json").read_bytes()

    def changed() -> set[str]:
        return {
            str(p.relative_to(folder / "evaluation" / "measured")) for p, t in kept.items() if p.stat().st_mtime_ns != t
        }

    assert main(["score", str(folder), *CHEAP]) == 0
    assert changed() == set()
    (folder / "evaluation" / "measured" / "clip_i" / "v1.json").unlink()  # as a run that was killed leaves it
    assert main(["score", str(folder), *CHEAP]) == 0
    assert changed() == {"clip_i/v1.json"}
    assert (folder / "evaluation" / "scores.json").read_bytes() == whole
    kept = {p: p.stat().st_mtime_ns for p in kept}
    video(folder / "v2.mp4", 3.0, seed=9)
    assert main(["score", str(folder), *CHEAP]) == 0
    assert changed() == {"clip_i/v2.json", "clip_t/v2.json", "control/v2.json"}
    kept = {p: p.stat().st_mtime_ns for p in kept}
    monkeypatch.setattr(Control, "definition", Control.definition + ".")
    assert main(["score", str(folder), *CHEAP]) == 0
    assert changed() == {"control/v0.json", "control/v1.json", "control/v2.json"}


def test_several_processes_share_the_videos_out(tmp_path: Path, at_weights: Path) -> None:
    folder = listed(tmp_path / "ours", {0.0: 0.0, 10.0: 1.0, 20.0: 2.0})
    assert main(["score", str(folder), "--metrics", "control", "--out", str(tmp_path / "alone"), "--name", "x"]) == 0
    measured, said = [], []
    for rank in range(2):
        environment = os.environ | {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
        command = [sys.executable, "-m", "training.evaluate", "score", str(folder), "--metrics", "control"]
        command += ["--out", str(tmp_path / "shared"), "--name", "x"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        said.append(done.stderr + done.stdout)
        measured.append(sorted(p.name for p in (tmp_path / "shared" / "measured").rglob("*.json")))
    assert measured == [["v0.json", "v2.json"], ["v0.json", "v1.json", "v2.json"]]
    assert "0: 1 scores are still missing, other processes are at them" in said[0]
    assert "x, control over 3 videos" in said[1]
    alone, shared = ((tmp_path / name / "scores.json").read_text() for name in ("alone", "shared"))
    assert alone == shared


@pytest.mark.slow
def test_torchrun_starts_the_processes(tmp_path: Path) -> None:
    folder = listed(tmp_path / "ours", {0.0: 0.0, 10.0: 1.0, 20.0: 2.0})
    arguments = ["score", str(folder), "--metrics", "control", "--name", "x", "--out"]
    assert main([*arguments, str(tmp_path / "alone")]) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "training.evaluate", *arguments, str(tmp_path / "shared")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "x, control over 3 videos" in done.stdout  # of the one that finished last, or of both
    alone, shared = ((tmp_path / name / "scores.json").read_text() for name in ("alone", "shared"))
    assert alone == shared


def test_missing_model_files_are_said_before_the_first_video(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path / "weights"))
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = listed(tmp_path / "ours", {20.0: 2.0})
    assert main(["score", str(folder)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "training.evaluate: model files:"
    names = [line.split(":")[0].strip() for line in said[1:]]
    assert names == [
        "dover",
        "amt-s",
        "raft_large_things",
        "clip-vit-l-14",
        *(f"mtcnn-{n}net" for n in "pro"),
        "facenet-vggface2",
    ]
    assert said[1] == (
        "  dover: missing (MIT (VQAssessment/DOVER); trained on LSVQ): run `python -m curation.weights fetch dover`, "
        "or get it from https://github.com/QualityAssessment/DOVER/releases/download/v0.1.0/DOVER.pth and put it at "
        f"{tmp_path}/weights/dover/DOVER.pth"
    )
    assert not (folder / "evaluation").exists()
    assert main(["score", str(folder), "--metrics", "control"]) == 0  # needs none


def test_a_broken_video_is_counted_and_the_others_are_scored(
    tmp_path: Path, at_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = listed(tmp_path / "ours", {0.0: 0.0, 20.0: 2.0})
    (folder / "v0.mp4").write_bytes(b"no video")
    lines = (folder / "videos.jsonl").read_text().splitlines()
    (folder / "videos.jsonl").write_text(lines[0] + "\n" + json.dumps(json.loads(lines[1]) | {"prompt": ""}))
    assert main(["score", str(folder), *CHEAP]) == 1
    said = capsys.readouterr()
    assert "clip_i of v0: " in said.err
    assert "v0.mp4: cannot be read as a video" in said.err
    assert f"clip_t of v1: {folder}/v1.mp4: has no prompt to compare with" in said.err
    assert "ours: 1 of 2 videos have no clip_i, see scores.json." in said.out
    found = read_summary(folder / "evaluation")["metrics"]
    assert (found["clip_i"]["videos"], found["clip_t"]["videos"]) == (1, 0)
    assert found["clip_t"]["mean"] is None


def test_wrong_folders_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def says(folder: Path) -> str:
        assert main(["score", str(folder), "--metrics", "control"]) == 2
        return capsys.readouterr().err.removeprefix("training.evaluate: ").strip()

    assert says(tmp_path / "none") == f"{tmp_path}/none: is not a folder"
    (tmp_path / "empty").mkdir()
    assert says(tmp_path / "empty").startswith(f"{tmp_path}/empty: no videos.jsonl, and no records of training.sample")
    folder = listed(tmp_path / "ours", {20.0: 2.0})
    (folder / "v0.mp4").rename(folder / "other.mp4")
    assert says(folder) == f"v0: its video {folder}/v0.mp4 does not exist"
    (folder / "videos.jsonl").write_text('{"video": "other.mp4", "image": "x.png", "intensity": 21}\n')
    assert says(folder) == f"{folder}/videos.jsonl:1: intensity: Input should be less than or equal to 20"


def test_the_table_puts_methods_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, speed in (("one", 1.0), ("two", 2.0)):
        assert main(["score", str(listed(tmp_path / name, {20.0: speed})), "--metrics", "control"]) == 0
    out = tmp_path / "table.md"
    assert main(["table", str(tmp_path / "one/evaluation"), str(tmp_path / "two/evaluation"), "--out", str(out)]) == 0
    rows = [line.split(" | ")[0] for line in out.read_text().splitlines() if line.startswith("| ")]
    assert rows[-3:] == ["| MotionCharacter (paper)", "| one", "| two"]
    capsys.readouterr()
    assert main(["table", str(tmp_path)]) == 2
    assert "scores.json: no such file; `python -m training.evaluate score` writes it" in capsys.readouterr().err
