import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from curation.export import export as exporting
from curation.export.__main__ import main
from curation.export.card import write_card
from curation.export.media import encode
from curation.names import SUMMARY
from curation.outputs import write_json, write_outputs
from curation.summary import save_config
from manifests.shards import read_manifest
from manifests.trees import remove_tree
from tests.curation.made import Made, clip, config
from tests.media import number_of, numbered, write_video

SIDE = 96
GRID = [30 + int(i * 7.5) for i in range(16)]  # 4 fps from second 1 of a 30 fps file; ties go to the earlier frame
VIDEOS = ["a.mp4", "b.mp4", "c|<b>.mp4"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The output folder of a run over three numbered videos and a still."""
    source = [{"name": "s", "kind": "folder", "root": str(tmp_path / "clips"), "licence": "CC BY <4>"}]
    frames = {"size": SIDE, "count": 16}
    made = Made(config(tmp_path, frames=frames, sources=source, split={"val_fraction": 0.4}))
    square = {
        "header": {"width": SIDE, "height": SIDE, "short_side": 720, "fps": 30.0, "file_duration_s": 5.0},
        "crop": {"crop": [0.0, 0.0, float(SIDE), float(SIDE)]},
    }
    for name in VIDEOS:
        write_video(tmp_path / "clips" / name, size=(SIDE, SIDE), codec_options={"crf": "10"})
        made.measure(clip(name), **square)
    Image.fromarray(numbered(700, SIDE, SIDE)).save(tmp_path / "clips" / "still.png")
    still = {"start_s": 0.0, "duration_s": None, "fps": None, "file_duration_s": None, "frame_count": None}
    made.measure(
        clip("still.png", kind="image"),
        **square | {"header": square["header"] | still, "motion": {"motion_intensity": 0.0}},
    )
    made.listing([*map(clip, VIDEOS), clip("still.png", kind="image")])
    save_config(made.output, made.config, made.engines)
    with made.read() as known:
        decision = write_outputs(made.config, made.engines, known)
    stages = {name: {**engine, "measured": 0} for name, engine in made.engines.items()}
    thresholds = made.config.limits()
    write_json(made.output / SUMMARY, {**decision.as_json(), "stages": stages, "thresholds": thresholds})
    assert decision.status == {"kept": 4}
    return made.output


def export(run: Path, *options: str) -> int:
    return main([str(run), "--workers", "1", *options])


def shown(content: bytes, tmp_path: Path) -> list[tuple[float, int]]:
    """(seconds, number) of each frame of a video file."""
    path = tmp_path / "shown.mp4"
    path.write_bytes(content)
    with av.open(str(path)) as container:
        return [(float(f.time), number_of(f.to_ndarray(format="rgb24"))) for f in container.decode(video=0)]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_webdataset_holds_the_grid_and_the_manifest_rows(run: Path, tmp_path: Path) -> None:
    import webdataset

    assert export(run, "--to", "webdataset") == 0
    tars = sorted((run / "exports" / "webdataset-grid").glob("*.tar"))
    assert [tar.name for tar in tars] == ["train-00000.tar", "val-00000.tar"]
    samples = [s for tar in tars for s in webdataset.WebDataset(str(tar), shardshuffle=False)]
    rows = {row["clip_id"]: row for row in read_manifest(run).to_pylist()}
    assert {s["__key__"] for s in samples} == set(rows)
    for sample in samples:
        row = json.loads(sample["json"])
        assert row == rows[sample["__key__"]]
        assert ("val" in sample["__url__"]) == (row["split"] == "val")
        expected = [700] * 16 if row["kind"] == "image" else GRID
        assert shown(sample["mp4"], tmp_path) == [(i / 4, n) for i, n in enumerate(expected)]
    with tarfile.open(tars[0]) as tar:
        assert {(m.mtime, m.mode, m.uid) for m in tar} == {(0, 0o644, 0)}


def test_original_clips_hold_every_frame_of_the_span(run: Path, tmp_path: Path) -> None:
    assert export(run, "--to", "clips", "--form", "original") == 0
    for row in read_manifest(run).to_pylist():
        folder = run / "exports" / "clips-original" / f"{row['split']}-00000"
        assert json.loads((folder / f"{row['clip_id']}.json").read_text())["path"] == row["path"]
        if row["kind"] == "image":
            picture = np.asarray(Image.open(folder / f"{row['clip_id']}.png"))
            assert np.array_equal(picture, numbered(700, SIDE, SIDE))
            continue
        frames = shown((folder / f"{row['clip_id']}.mp4").read_bytes(), tmp_path)
        assert [n for _, n in frames] == list(range(30, 143))  # 1 s to 4.75 s
        assert frames[-1][0] == pytest.approx(112 / 30, abs=1e-3)


def test_original_clips_are_upright_and_cut_to_the_sources_box(tmp_path: Path) -> None:
    from curation.export.media import Renderer
    from stages.frames import FrameSpec
    from stages.staging import Cache

    def boxed(number: int, width: int, height: int) -> np.ndarray:
        picture = np.full((height, width, 3), 125, np.uint8)
        picture[height // 2 :, width // 4 :] = numbered(number, width - width // 4, height - height // 2)
        return picture

    write_video(tmp_path / "turned.mp4", frames=60, size=(128, 192), rotation=90, picture=boxed)
    row = {"clip_id": "0", "source": "s", "path": "turned.mp4", "kind": "video", "start_s": 0.5, "duration_s": 0.2}
    row |= {"fps": 30.0, "rotation": 90, "source_box": [0.25, 0.5, 1.0, 1.0]}
    extension, content = Renderer(
        {"s": str(tmp_path)}, FrameSpec(size=64), "original", 60, Cache(tmp_path / "cache", 0)
    ).render(row)
    assert (extension, [n for _, n in shown(content, tmp_path)]) == ("mp4", list(range(15, 22)))


def test_hugging_face_folder_loads_and_its_card_is_filled(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    assert export(run, "--to", "hf") == 0
    folder = run / "exports" / "hf-grid"
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == {"train": 1, "validation": 3}
    for split in loaded.values():
        for row in split.cast_column("video", datasets.Video(decode=False)):
            expected = [700] * 16 if row["kind"] == "image" else GRID
            assert [n for _, n in shown(row["video"]["bytes"], tmp_path)] == expected
            assert row["image"] is None
            assert row["action"] == "holding still"
    card = (folder / "README.md").read_text()
    assert "# Human-Motion, 4 clips" in card
    assert "| s | folder | 4 | 4 | 0 | 0 | CC BY &lt;4&gt; |" in card
    assert "| motion | dis |" in card
    assert "## Biometric data" in card
    assert "| 5 to 6 | 3 |" in card


def test_only_what_changed_is_made_again_and_bytes_are_the_same(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PER_SHARD", 1)
    dest = tmp_path / "e"
    assert export(run, "--to", "clips", "--dest", str(dest)) == 0
    said = capsys.readouterr().out
    first = files(dest)
    count = sum("/" in name and name.endswith(".mp4") for name in first)
    assert (count, said.count("4 clips in")) == (4, 1)
    assert export(run, "--to", "clips", "--dest", str(dest)) == 0
    assert ", 0 made now" in capsys.readouterr().out
    gone = next((dest / exporting.NOTES).glob("train-*.json"))
    remove_tree(dest / gone.stem)
    assert export(run, "--to", "clips", "--dest", str(dest), "--workers", "2") == 0
    assert ", 1 made now" in capsys.readouterr().out
    assert files(dest) == first


def test_an_interrupted_export_goes_on(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert export(run, "--to", "webdataset", "--dest", str(tmp_path / "whole")) == 0
    real, calls = exporting.Export._make, []

    def interrupted(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(exporting.Export, "_make", interrupted)
        assert export(run, "--to", "webdataset", "--dest", str(tmp_path / "e")) == 130
    assert [p.name for p in (tmp_path / "e").glob("*.tar")] == ["train-00000.tar"]
    assert export(run, "--to", "webdataset", "--dest", str(tmp_path / "e")) == 0
    assert files(tmp_path / "e") == files(tmp_path / "whole")


def test_a_clip_that_cannot_be_read_is_named_and_tried_again(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clips" / "b.mp4").rename(tmp_path / "b.mp4")
    assert export(run, "--to", "webdataset") == 3
    said = capsys.readouterr().out
    assert "3 clips in 2 shard(s)" in said
    assert "  not exported: s/b.mp4: does not exist" in said
    (tmp_path / "b.mp4").rename(tmp_path / "clips" / "b.mp4")
    assert export(run, "--to", "webdataset") == 0
    assert "4 clips in 2 shard(s)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda dest: (dest / "notes.txt").write_text(""), "is not empty and holds no export; choose another --dest"),
        (
            lambda dest: write_json(dest / exporting.STATE, {"to": "hf", "form": "grid"}),
            "holds an export --to hf --form grid; choose another",
        ),
    ],
)
def test_a_folder_that_holds_something_else_is_refused(
    prepare: Callable[[Path], Any], message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dest = tmp_path / "e"
    dest.mkdir()
    prepare(dest)
    before = files(dest)
    assert export(run, "--to", "webdataset", "--dest", str(dest)) == 2
    assert capsys.readouterr().err == f"{dest}: {message}\n"
    assert files(dest) == before


def test_a_shorter_manifest_removes_what_it_no_longer_has(run: Path, tmp_path: Path) -> None:
    from curation.decide import main as decide

    dest = tmp_path / "e"
    assert export(run, "--to", "clips", "--dest", str(dest)) == 0
    assert decide([str(run), "--set", "thresholds.min_motion_intensity=1"]) == 0  # the still goes
    assert export(run, "--to", "clips", "--dest", str(dest)) == 0
    kept = {row["clip_id"] for row in read_manifest(run).to_pylist()}
    assert len(kept) == 3
    assert {p.stem for p in dest.rglob("*.mp4")} == kept


def test_the_card_escapes_what_could_be_markup(run: Path, tmp_path: Path) -> None:
    from curation.decide import load_decided

    settings = load_decided(run, [])
    source = settings.sources[0].model_copy(update={"licence": "a | b\n[x](javascript:y) <script>"})
    write_card(settings.model_copy(update={"sources": (source,)}), tmp_path / "card", "grid")
    text = (tmp_path / "card" / "README.md").read_text()
    assert "a \\| b \\[x](javascript:y) &lt;script&gt; |" in text


def test_odd_sizes_lose_a_row_and_a_column(tmp_path: Path) -> None:
    from fractions import Fraction

    path = tmp_path / "odd.mp4"
    path.write_bytes(encode(((i / 4, np.full((65, 97, 3), 90, np.uint8)) for i in range(3)), Fraction(4)))
    with av.open(str(path)) as container:
        assert [(f.width, f.height) for f in container.decode(video=0)] == [(96, 64)] * 3
