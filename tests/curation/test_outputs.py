import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curation.decide import main as decide_main
from curation.names import SUMMARY
from curation.outputs import Decision, write_outputs
from curation.summary import save_config
from manifests.schema import INDEXED, LISTED, manifest_schema, rejected_schema
from manifests.shards import metadata, read_manifest
from tests.curation.made import Made, clip, config, random_changes


def decide(made: Made) -> Decision:
    with made.read() as measurements:
        return write_outputs(made.config, made.engines, measurements)


def rejected(made: Made) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in read_manifest(made.output / "rejected").to_pylist()}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("part-*.parquet"))}


def test_kept_clips_have_every_column_the_engines_give(tmp_path: Path) -> None:
    made = Made(config(tmp_path))
    made.listing([clip("a.mp4")])
    made.measure(clip("a.mp4"), motion={"motion_intensity": 31.0})
    decide(made)
    table = read_manifest(made.output)
    assert table.schema.remove_metadata() == manifest_schema().remove_metadata()
    assert table.schema.field("crop").metadata[b"unit"] == b"native px"
    row = table.to_pylist()[0]
    assert row["clip_id"] == clip("a.mp4").clip_id
    assert (row["motion_intensity"], row["motion_intensity_capped"], row["motion_bin"]) == (31.0, 20.0, 19)
    assert row["sample_weight"] == 1.0
    assert row["crop"] == [0.0, 0.0, 512.0, 512.0]
    assert row["action"] == "holding still"
    assert {name for name, value in row.items() if value is None} == {
        *LISTED,  # a folder's clips are whole files that no index names
        *INDEXED,
        "frame_hash",
        "face_landmarks",
        "face_embedding",
        "face_similarity",
        "image_embedding",
        "frame_embedding",
        "identity",
    }
    written = metadata(made.output)
    assert written["roots"] == {"s": str(tmp_path / "clips")}
    assert written["engines"]["motion"]["engine"] == "dis"
    assert written["thresholds"]["min_side"] == 512


def test_rejected_rows_say_why_and_hide_what_later_stages_measured(tmp_path: Path) -> None:
    made = Made(config(tmp_path))
    broken = clip("broken.mp4", problem="broken link to x")
    made.listing([clip("text.mp4"), clip("bad.mp4"), broken, clip("new.mp4")])
    made.measure(clip("text.mp4"), text={"text_area": 0.25})
    made.measure(clip("bad.mp4"), ["header", "decode"], decode={"error": "ends early"})
    decide(made)
    rows = rejected(made)
    assert read_manifest(made.output / "rejected").schema.names == rejected_schema().names
    text = rows["text.mp4"]
    assert (text["status"], text["stage"], text["reason"]) == ("rejected", "text", "text_overlay")
    assert (text["value"], text["threshold"], text["error"]) == (0.25, 0.02, None)
    assert text["quality_score"] == 0.5
    assert text["text_area"] == 0.25
    assert all(text[c] is None for c in ("face_count", "crop", "motion_intensity", "caption", "sample_weight"))
    bad = rows["bad.mp4"]
    assert (bad["status"], bad["stage"], bad["error"], bad["reason"]) == ("failed", "decode", "ends early", None)
    assert (rows["broken.mp4"]["stage"], rows["broken.mp4"]["error"]) == ("listing", "broken link to x")
    assert (rows["new.mp4"]["status"], rows["new.mp4"]["stage"]) == ("to_measure", "header")


def test_in_equals_kept_rejected_failed_and_to_measure(tmp_path: Path) -> None:
    rng = random.Random(3)
    made = Made(config(tmp_path))
    clips = [clip(f"{i}.mp4") for i in range(300)]
    made.listing(clips)
    for one in clips[:280]:
        made.measure(one, **random_changes(rng))
    summary = decide(made).as_json()
    assert summary["inputs"] == 300
    assert sum(summary[name] for name in ("kept", "rejected", "failed", "to_measure")) == 300
    assert read_manifest(made.output).num_rows == summary["kept"]
    statuses = [row["status"] for row in rejected(made).values()]
    assert statuses.count("rejected") == summary["rejected"]
    assert statuses.count("failed") == summary["failed"]
    assert statuses.count("to_measure") == summary["to_measure"] == 20
    left = 300
    for step in summary["funnel"]:
        assert step["in"] == left
        left -= sum(step["rejected"].values()) + step["failed"] + step["to_measure"]
        assert step["out"] == left
    assert left == summary["kept"]
    assert len(summary["errors"]) == summary["failed"]
    draws = summary["motion_histogram"]["expected_draws_per_bin"]
    assert sum(draws) == pytest.approx(summary["kept"], abs=1e-3)


def test_the_bytes_do_not_depend_on_order_or_repetition_of_measuring(tmp_path: Path) -> None:
    rng = random.Random(5)
    one = Made(config(tmp_path))
    clips = [clip(f"{i}.mp4") for i in range(200)]
    changes = {c.path: random_changes(rng) for c in clips}
    for each in changes.values():  # a failure that is tried again could turn into anything
        for stage in list(each):
            each[stage].pop("transient", None)
    one.listing(clips)
    for c in clips:
        one.measure(c, **changes[c.path])
    decide(one)
    other = Made(one.config.model_copy(update={"output": str(tmp_path / "other")}))
    other.listing(reversed(clips))
    for c in rng.sample(clips, 200):
        other.measure(c, **changes[c.path])
        if rng.random() < 0.2:
            other.recorder.flush()
            other.measure(c, **changes[c.path])
    decide(other)
    for folder in ("manifests", "rejected"):
        assert files(one.output / folder) == files(other.output / folder)


def test_stills_have_no_bin_and_keep_their_share(tmp_path: Path) -> None:
    made = Made(config(tmp_path))
    clips = [clip(f"{i}.mp4") for i in range(6)] + [clip(f"{i}.png", kind="image") for i in range(2)]
    made.listing(clips)
    for i, one in enumerate(clips):
        made.measure(one, motion={"motion_intensity": 0.0 if one.kind == "image" else 0.5 if i else 7.5})
    decide(made)
    rows = read_manifest(made.output).to_pylist()
    assert {row["motion_bin"] for row in rows if row["kind"] == "image"} == {None}
    assert {row["sample_weight"] for row in rows if row["kind"] == "image"} == {1.0}
    by_bin = {bin_: sum(r["sample_weight"] for r in rows if r["motion_bin"] == bin_) for bin_ in (0, 7)}
    assert by_bin == pytest.approx({0: 3.0, 7: 3.0})


def test_clips_whose_camera_could_not_be_told_stay_out_of_its_bins(tmp_path: Path) -> None:
    made = Made(config(tmp_path, resample={"by": "camera_motion"}))
    clips = [clip(f"{i}.mp4") for i in range(4)]
    made.listing(clips)
    for i, one in enumerate(clips):
        made.measure(one, motion={"camera_motion": None if i == 0 else 3.5})
    summary = decide(made).as_json()
    rows = {row["path"]: row for row in read_manifest(made.output).to_pylist()}
    assert rows["0.mp4"]["motion_bin"] is None
    assert {row["motion_bin"] for row in rows.values()} == {None, 3}
    assert {row["sample_weight"] for row in rows.values()} == {1.0}
    assert summary["motion_histogram"]["unbinned"] == 1


def test_an_output_path_is_not_read_as_columns(tmp_path: Path) -> None:
    made = Made(config(tmp_path, output=str(tmp_path / "source=other" / "kind=image")))
    made.listing([clip("a.mp4")])
    made.measure(clip("a.mp4"))
    decide(made)
    row = read_manifest(made.output).to_pylist()[0]
    assert (row["source"], row["kind"]) == ("s", "video")


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_measurement_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    made = Made(config(tmp_path))
    made.listing([clip("a.mp4")])
    made.measure(clip("a.mp4"))
    save_config(made.output, made.config, made.engines)
    decide(made)
    file = next((made.output / "measurements" / "text").rglob("*.parquet"))
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(b"" if damage == "cut" else content)
    assert decide_main([str(made.output)]) == 1
    said = capsys.readouterr().err
    assert said == f"stopped: {file.parent}: {file.name} is damaged; curation.run measures its clips anew\n"


def test_the_split_follows_the_file_and_not_the_dataset(tmp_path: Path) -> None:
    made = Made(config(tmp_path, split={"val_fraction": 0.3}))
    clips = [clip(f"{i}.mp4") for i in range(200)]
    made.listing(clips)
    for one in clips:
        made.measure(one)
    decide(made)
    all_ = {r["path"]: r["split"] for r in read_manifest(made.output).to_pylist()}
    assert 40 < sum(s == "val" for s in all_.values()) < 80
    made.listing(clips[:50])
    decide(made)
    some = {r["path"]: r["split"] for r in read_manifest(made.output).to_pylist()}
    assert some == {path: all_[path] for path in some}
    assert len(some) == 50


def test_deciding_again_moves_clips_and_lists_what_was_never_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Made(config(tmp_path))
    made.listing([clip("good.mp4"), clip("text.mp4")])
    made.measure(clip("good.mp4"))
    made.measure(clip("text.mp4"), ["header", "decode", "cut", "hash", "quality", "text"], text={"text_area": 0.05})
    save_config(made.output, made.config, made.engines)
    before = decide(made)
    assert before.status == {"kept": 1, "rejected": 1}
    kept = files(made.output / "manifests")
    assert decide_main([str(made.output), "--set", "thresholds.max_text_area=0.1"]) == 0
    said = capsys.readouterr().out
    assert "2 clips = 1 kept + 0 rejected + 0 failed + 1 to_measure" in said
    assert "curation.run with the same --set measures them" in said
    assert rejected(made)["text.mp4"]["status"] == "to_measure"
    assert rejected(made)["text.mp4"]["stage"] == "face"
    assert (made.output / SUMMARY).exists()
    assert decide_main([str(made.output), "--set", "thresholds.min_quality=0.9"]) == 0
    assert read_manifest(made.output).num_rows == 0
    assert decide_main([str(made.output)]) == 0
    assert files(made.output / "manifests") == kept


def test_shards_open_with_pandas(tmp_path: Path) -> None:
    import pandas as pd

    made = Made(config(tmp_path))
    made.listing([clip("a.mp4")])
    made.measure(clip("a.mp4"))
    decide(made)
    frame = pd.read_parquet(made.output / "manifests")
    assert frame.loc[0, "motion_intensity"] == 5.0
    assert frame["face_count"].dtype.kind == "i"
    assert pq.read_schema(made.output / "manifests" / "part-00000.parquet").field("motion_intensity").metadata[b"unit"]


def test_clips_of_the_same_face_share_an_identity(tmp_path: Path) -> None:
    made = Made(config(tmp_path))
    faces = {"a": [1.0, 0.0], "b": [0.9, 0.43589], "c": [0.0, 1.0], "d": None, "e": [1.0, 0.0]}
    clips = {name: clip(f"{name}.mp4") for name in faces}
    made.listing(clips.values())
    for name, embedding in faces.items():
        count = 2 if name == "e" else 1  # rejected, so no identity
        made.measure(clips[name], face={"face_embedding": embedding, "face_count": count})
    decide(made)
    rows = {r["path"][0]: r["identity"] for r in read_manifest(made.output).to_pylist()}
    assert set(rows) == set("abcd")
    assert rows["a"] == rows["b"] in (clips["a"].clip_id, clips["b"].clip_id)
    assert rows["c"] == clips["c"].clip_id
    assert rows["d"] is None
    assert rejected(made)["e.mp4"]["identity"] is None
