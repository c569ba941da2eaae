import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.export import export as exporting
from curation.export.__main__ import main as export_main
from curation.forget import main
from curation.forgotten import digest, without_forgotten
from curation.names import SUMMARY
from curation.outputs import write_outputs
from curation.summary import save_config
from curation.traces import Needles, search
from manifests.shards import read_manifest
from stages.clip import Clip
from stages.table import STAGES
from tests.curation.made import Made, clip, config
from tests.media import write_video

SIDE = 96
STAY = [clip("stay.mp4"), clip("a/stay.mp4"), clip("more.mp4"), clip("blurred.mp4"), clip("broken.mp4")]
GO = clip("a/go <1>.mp4")
FAILED = clip("a/failed.mp4")


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A run over seven clips, decided, with flows and a cache."""
    made = Made(config(tmp_path, frames={"size": SIDE}))
    square = {
        "header": {"width": SIDE, "height": SIDE, "short_side": 720, "fps": 30.0},
        "crop": {"crop": [0.0, 0.0, float(SIDE), float(SIDE)]},
    }
    (tmp_path / "clips" / "a").mkdir()
    for one in (*STAY, GO):
        write_video(tmp_path / "clips" / one.path, size=(SIDE, SIDE))
        path = made.output / "flows" / "f" / one.clip_id[:2] / f"{one.clip_id}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, magnitude=np.zeros(3, np.uint8))
        quality = {"quality_score": 0.1 if one.path == "blurred.mp4" else 0.9}
        failed = {"motion": {"error": "no memory", "transient": False}} if one.path == "broken.mp4" else {}
        made.measure(one, quality=quality, **square, **failed)
    made.measure(FAILED, ["header"], header={"error": "a/failed.mp4 is empty", "transient": False})
    made.listing([*STAY, GO, FAILED])
    save_config(made.output, made.config, made.engines)
    with made.read() as known:
        decision = write_outputs(made.config, made.engines, known)
    stages = {name: {**engine} for name, engine in made.engines.items()}
    summary = {**decision.as_json(), "stages": stages, "thresholds": made.config.limits()}
    (made.output / SUMMARY).write_text(json.dumps(summary))
    assert decision.status == {"kept": 4, "rejected": 1, "failed": 2}
    return made


def tells_of(folder: Path, *clips: Clip) -> list[str]:
    """The files whose name or raw bytes, unpacked where they are packed by us, hold a clip's id or path."""
    words = {word.encode() for one in clips for word in (one.clip_id, one.path)}
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = str(path).encode() + path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            content += repr(table.drop_columns([c for c in table.column_names if c == "video"]).to_pylist()).encode()
        if any(word in content for word in words):
            found.append(str(path.relative_to(folder)))
    return found


def test_every_trace_goes_and_the_rest_stays(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PER_SHARD", 1)
    cache, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    cache.mkdir()
    (cache / f"{GO.clip_id}-512.npy").write_bytes(b"frames")
    (cache / f"{STAY[0].clip_id}-512.npy").write_bytes(b"frames")
    assert export_main([str(made.output), "--to", "webdataset", "--workers", "1"]) == 0
    assert export_main([str(made.output), "--to", "hf", "--workers", "1", "--dest", str(elsewhere)]) == 0
    before = {row["clip_id"]: row for row in read_manifest(made.output).to_pylist()}
    untouched = {
        p: p.read_bytes() for p in elsewhere.rglob("*.parquet") if GO.clip_id not in str(pq.read_table(p)["clip_id"])
    }
    assert untouched
    assert len(tells_of(tmp_path, GO, FAILED)) > 15
    capsys.readouterr()

    ids = ["--clip", GO.clip_id, "--path", "s/a/failed.mp4"]
    assert main([str(made.output), *ids, "--also", str(cache), "--also", str(elsewhere)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("2 clip(s) to forget\n")
    assert f"  {GO.clip_id}  s/a/go <1>.mp4" in said
    rows = len(STAGES) + 1 + 2  # of the kept clip, with the listing's; of the failed one
    assert f"forgotten: 2 clip(s); removed {rows} measurement(s) and 2 file(s)" in said
    assert "no trace is left" in said

    for folder in (made.output, cache, elsewhere):
        assert tells_of(folder, GO, FAILED) == []
    after = {row["clip_id"]: row for row in read_manifest(made.output).to_pylist()}
    assert set(after) == set(before) - {GO.clip_id} == {one.clip_id for one in STAY[:3]}
    assert {r["path"] for r in read_manifest(made.output / "rejected").to_pylist()} == {"blurred.mp4", "broken.mp4"}
    summary = json.loads((made.output / SUMMARY).read_text())
    assert (summary["inputs"], summary["kept"], summary["rejected"], summary["failed"]) == (5, 3, 1, 1)
    assert (cache / f"{STAY[0].clip_id}-512.npy").exists()
    for path, content in untouched.items():
        assert path.read_bytes() == content


def test_a_forgotten_clip_does_not_come_back(made: Made) -> None:
    assert main([str(made.output), "--clip", GO.clip_id]) == 0
    assert digest(GO.clip_id) in (made.output / "measurements" / "forgotten.txt").read_text()
    ignored: Counter[str] = Counter()
    assert list(without_forgotten([*STAY, GO], made.output, ignored)) == STAY
    assert ignored == {"(forgotten)": 1}
    assert main([str(made.output), "--path", "s/stay.mp4"]) == 0
    assert list(without_forgotten([*STAY, GO], made.output, ignored)) == STAY[1:]


def test_a_whole_source_is_forgotten(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(made.output), "--source", "s"]) == 0
    assert "no trace is left" in capsys.readouterr().out
    assert read_manifest(made.output).num_rows == 0
    assert tells_of(made.output, GO, FAILED, *STAY) == []


def test_a_dry_run_lists_and_changes_nothing(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.read_bytes() for p in made.output.rglob("*") if p.is_file()}
    assert main([str(made.output), "--path", "s/a/go <1>.mp4", "--dry-run"]) == 0
    assert capsys.readouterr().out == f"1 clip(s) to forget\n  {GO.clip_id}  s/a/go <1>.mp4\n"
    assert {p: p.read_bytes() for p in made.output.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clip", "0" * 32], "--clip 00000000000000000000000000000000: no such clip in {out}"),
        (["--path", "s/nothing.mp4"], "--path s/nothing.mp4: no such file in {out}; expected SOURCE/PATH as in"),
        (["--source", "t"], "--source t: no clip of such a source in {out}"),
        ([], "nothing to forget: give --clip, --path or --source"),
        (["--source", "s", "--also", "/nowhere"], "--also /nowhere: no such folder"),
    ],
)
def test_what_is_not_there_is_one_line(
    options: list[str], message: str, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(made.output), *options]) == 2
    said = capsys.readouterr().err
    assert said.startswith(message.format(out=made.output))
    assert said.count("\n") == 1


def test_the_search_finds_what_was_left_behind(tmp_path: Path) -> None:
    needles = Needles.of({GO.clip_id: ("s", GO.path), "f" * 32: ("s", "both.mp4")}, ["both.mp4", "dir/a/stay.mp4"])
    contents = {
        "report.html": "<td>a/go &lt;1&gt;.mp4</td>",
        "config.json": json.dumps({"x": GO.path}),
        "ids.txt": f"x {GO.clip_id} y",
        "clean.txt": f"both.mp4 b{GO.clip_id} xa/go <1>.mp4",
    }
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    (tmp_path / f"{GO.clip_id}.npz").write_bytes(b"")
    (tmp_path / "long.bin").write_bytes(b"x" * ((1 << 24) - 10) + b" " + GO.clip_id.encode())
    nested = pa.table({"errors": [[{"at": GO.path, "n": 1}]], "video": [{"bytes": b"a"}]})
    pq.write_table(nested, tmp_path / "nested.parquet")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        row = json.dumps({"path": GO.path}).encode()
        member = tarfile.TarInfo("0.json")
        member.size = len(row)
        tar.addfile(member, io.BytesIO(row))
    hits = {path.name for path, hit in search(tmp_path, needles) if hit}
    clean = {path.name for path, hit in search(tmp_path, needles) if not hit}
    assert clean == {"clean.txt"}
    assert hits == {*contents, f"{GO.clip_id}.npz", "long.bin", "nested.parquet", "x.tar"} - clean
