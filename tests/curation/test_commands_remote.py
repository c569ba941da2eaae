"""Every command on an output folder on S3, over clips on S3 that are windows of longer videos."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curation.browsing import Clips
from curation.decide import load_decided
from curation.decide import main as decide_main
from curation.export.__main__ import main as export_main
from curation.forget import main as forget_main
from curation.show import main as show_main
from curation.store import listing_folder
from curation.traces import Needles, search
from manifests.shards import read_manifest
from manifests.storage import Remote
from manifests.trees import files_below
from tests.curation import fakes
from tests.curation.test_storage import curate

NAMES = ["a-1.mp4", "b-2.mp4", "c-3.mp4"]


@pytest.fixture
def out(tmp_path: Path, bucket: Remote) -> Remote:
    """A run over two windows of each of three videos."""
    fakes.install()
    fakes.write_clips(tmp_path / "clips", *NAMES)
    for name in NAMES:
        (bucket / "clips" / name).upload(tmp_path / "clips" / name)
    assert run(tmp_path, bucket) == 0
    return bucket / "out"


def run(folder: Path, bucket: Remote) -> int:
    source = {"name": "s", "kind": "folder", "root": str(bucket / "clips"), "windows": {"policy": "stride"}}
    return curate(folder, bucket / "clips", bucket / "out", "--runner", "in-process", sources=[source])


def test_show_what_if_and_sweep(out: Remote, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip_id = read_manifest(out)["clip_id"][0].as_py()
    capsys.readouterr()
    assert show_main([str(out), clip_id, "--strip", str(tmp_path / "strip.png")]) == 0
    said = capsys.readouterr().out
    assert "verdict   kept" in said
    assert "flow: s3://bucket/out/flows/" in said
    assert "(missing)" not in said
    assert Image.open(tmp_path / "strip.png").size == (3 * 192, 2 * 192)
    before = {str(file): file.read_bytes() for file in files_below(out)}
    assert decide_main([str(out), "--what-if", "--set", "thresholds.min_motion_intensity=2.5"]) == 0
    assert "4 of 6 clips would change:\n          4  kept -> rejected: too_still" in capsys.readouterr().out
    assert decide_main([str(out), "--sweep", "thresholds.min_motion_intensity=0.5:3.5:1"]) == 0
    kept = [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:5]]
    assert kept == ["6", "4", "2", "0"]
    assert {str(file): file.read_bytes() for file in files_below(out)} == before


def test_view(out: Remote, tmp_path: Path) -> None:
    config = load_decided(str(out), [])
    clips = Clips(config)
    count, rows = clips.page({}, "path", False, 0)
    assert (count, [row["path"] for row in rows]) == (6, sorted(2 * NAMES))
    assert clips.file(rows[0]["clip_id"]) is None
    clip = clips.remote(rows[0]["clip_id"])
    assert clip is not None
    with config.storage.opened().clip(clip, clips.roots[clip.source]) as path:
        assert Path(path).read_bytes() == (tmp_path / "clips" / clip.path).read_bytes()


@pytest.mark.parametrize("to", ["webdataset", *(pytest.param(to, marks=pytest.mark.slow) for to in ("clips", "hf"))])
def test_export_and_forget(
    to: str, out: Remote, bucket: Remote, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export_main([str(out), "--to", to, "--workers", "1"]) == 0
    assert export_main([str(out), "--to", to, "--workers", "1", "--dest", str(tmp_path / "local")]) == 0
    here = {str(p.relative_to(tmp_path / "local")): p.read_bytes() for p in files_below(tmp_path / "local")}  # type: ignore[arg-type]
    dest = f"{out}/exports/{to}-grid"
    there = {str(p)[len(dest) + 1 :]: p.read_bytes() for p in files_below(Remote(dest))}
    assert there == here
    if to == "webdataset":
        with tarfile.open(fileobj=io.BytesIO(here["train-00000.tar"])) as tar:
            assert len(tar.getnames()) == 2 * 6
    capsys.readouterr()
    assert export_main([str(out), "--to", to, "--workers", "1"]) == 0
    assert ", 0 made now" in capsys.readouterr().out

    gone = {row["clip_id"] for row in read_manifest(out).to_pylist() if row["path"] == "a-1.mp4"}
    assert len(gone) == 2
    assert forget_main([str(out), "--path", "s/a-1.mp4", "--also", str(tmp_path / "local")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("3 clip(s) to forget\n")  # the windows, and the video that they are cut from
    assert "no trace is left" in said
    needles = Needles.of({clip_id: ("s", "a-1.mp4") for clip_id in gone}, [])
    assert [str(file) for file, hit in search(bucket / "out", needles) if hit] == []
    assert [file for file, hit in search(tmp_path / "cache" / "tables", needles) if hit] == []
    assert sorted(read_manifest(out)["path"].to_pylist()) == ["b-2.mp4"] * 2 + ["c-3.mp4"] * 2
    windows = read_manifest(listing_folder(out / "windows" / "s"))
    assert windows["path"].to_pylist() == NAMES[1:]
    # Its file still lies in the source: it does not come back.
    assert run(tmp_path, bucket) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["inputs"], summary["run"]["clips_measured"]) == (4, 0)
    assert summary["ignored_files"] == {"(forgotten)": 1}
    assert [str(file) for file, hit in search(bucket / "out", needles) if hit] == []


def test_an_output_that_is_none_is_one_line(bucket: Remote, capsys: pytest.CaptureFixture[str]) -> None:
    for main, options in ((show_main, ["x"]), (export_main, ["--to", "hf"]), (forget_main, ["--source", "s"])):
        assert main(["s3://bucket/nothing", *options]) == 2
        said = capsys.readouterr().err
        assert said == "s3://bucket/nothing: no config.yaml there; expected the output folder of a run\n"


def test_training_reads_clips_and_flows_on_s3(out: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from training import data
    from training.config import fit_config

    monkeypatch.setattr(data, "default_folder", lambda: tmp_path / "staged")
    remote = data.Manifest.read(str(out), "train")
    local = data.Manifest.read(str(out), "train", {"s": str(tmp_path / "clips")})
    config = fit_config("embedded", ["size=64"])
    for row in remote.rows:
        one, two = (
            data.ClipDataset(manifest, config).load(row, np.random.default_rng(0)) for manifest in (remote, local)
        )
        assert torch.equal(one.video, two.video)
    assert len(list((tmp_path / "staged").glob("[0-9a-f]*"))) == 3
