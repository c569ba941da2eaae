"""Copies are found among many clips, whatever the order; the best is kept, and deciding again needs no model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation.decide import main as decide_main
from curation.duplicates import copies, similar_pairs
from curation.outputs import write_outputs
from curation.summary import save_config
from manifests.shards import read_manifest
from stages.hash import MIRROR
from tests.curation.made import Made, clip, config


def hashes(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, (count, 5), dtype=np.uint64)


def flipped(words: np.ndarray, bits: int, seed: int = 0) -> np.ndarray:
    """The hash (5,) with so many of its bits turned."""
    out = words.copy()
    for bit in np.random.default_rng(seed).choice(320, bits, replace=False):
        out[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    return out


def found(rows: np.ndarray, most: float = 0.85, kinds: np.ndarray | None = None) -> list[tuple[int, int, float]]:
    pairs = similar_pairs(rows, np.ones(len(rows), bool) if kinds is None else kinds, most)
    return [(int(a), int(b), round(float(s), 4)) for a, b, s in zip(*pairs, strict=True)]


def test_copies_are_found_among_many_up_to_the_threshold() -> None:
    rows = hashes(20_000)
    rows[15_000] = flipped(rows[7], 0)
    rows[15_001] = flipped(rows[8], 16)
    rows[15_002] = flipped(rows[9], 16) ^ MIRROR
    rows[15_003] = flipped(rows[10], 48)  # 0.85 of the bits are equal: not more than the threshold
    rows[12] = flipped(rows[15_004], 30)
    assert found(rows) == [(7, 15_000, 1.0), (8, 15_001, 0.95), (9, 15_002, 0.95), (12, 15_004, 0.9062)]


def test_of_pairs_that_differ_in_a_tenth_of_their_bits_nearly_all_are_found() -> None:
    rows = hashes(1000)
    rows = np.concatenate([rows, [flipped(row, 32, seed) for seed, row in enumerate(rows)]])
    assert len(found(rows)) >= 970  # 0.98 by the formula


def test_a_still_is_no_copy_of_a_video() -> None:
    rows = np.repeat(hashes(1), 2, axis=0)
    assert found(rows, kinds=np.array([True, False])) == []
    assert found(rows, kinds=np.array([False, False])) == [(0, 1, 1.0)]


def test_very_many_copies_of_one_clip_are_all_found_in_bounded_work() -> None:
    rows = np.repeat(hashes(1), 5000, axis=0)
    pairs = similar_pairs(rows, np.ones(5000, bool), 0.85)
    assert len(copies(*pairs)) == 4999
    assert set(copies(*pairs).values()) == {(0, 1.0)}
    assert len(pairs[0]) < 5 * 5000


def test_a_clip_like_a_rejected_one_alone_is_kept() -> None:
    # 0 ~ 1, 1 ~ 2, but 2 is not like 0
    pairs = np.array([0, 1]), np.array([1, 2]), np.array([0.9, 0.95])
    assert copies(*pairs) == {1: (0, 0.9)}


def made_of(folder: Path, clips: dict[str, dict[str, Any]], order: list[str] | None = None, **changes: Any) -> Made:
    """An output folder of clips with these hash, quality, ... ; `rows` by file name."""
    folder.mkdir(exist_ok=True)
    made = Made(config(folder, **changes))
    made.listing(clip(name, **c.get("clip", {})) for name, c in clips.items())
    for name in order or clips:
        stages = {k: v for k, v in clips[name].items() if k != "clip"}
        made.measure(clip(name, **clips[name].get("clip", {})), **stages)
    return made


def decided(made: Made) -> dict[str, tuple[str, str | None]]:
    """Per file: kept, or the reason and the file it is a duplicate of."""
    with made.read() as measurements:
        write_outputs(made.config, made.engines, measurements)
    kept = read_manifest(made.output).to_pylist()
    names = {row["clip_id"]: row["path"] for row in kept}
    rows = read_manifest(made.output / "rejected").to_pylist()
    return {row["path"]: ("kept", None) for row in kept} | {
        row["path"]: (row["reason"], names.get(row["duplicate_of"])) for row in rows
    }


def like(row: np.ndarray, bits: int = 0) -> dict[str, Any]:
    return {"frame_hash": flipped(row, bits).tolist()}


A, B = hashes(2, seed=5)
CLIPS: dict[str, dict[str, Any]] = {
    "a.mp4": {"hash": like(A), "quality": {"quality_score": 0.6}},
    "a-sharper.mp4": {"hash": like(A, 10), "quality": {"quality_score": 0.7}},
    "a-small.mp4": {"hash": like(A, 5), "quality": {"quality_score": 0.6}, "header": {"short_side": 600}},
    "b.mp4": {"hash": like(B), "header": {"short_side": 720}},
    "b-smaller.mp4": {"hash": like(B, 3)},
    "a-captioned.mp4": {"hash": like(A), "quality": {"quality_score": 0.9}, "text": {"text_area": 0.5}},
    "a-faster.mp4": {"hash": like(A), "motion": {"motion_intensity": 6.2}},
    "b.png": {"hash": like(B), "clip": {"kind": "image"}, "motion": {"motion_intensity": 0.0}},
    "b-copy.png": {"hash": like(B), "clip": {"kind": "image"}, "motion": {"motion_intensity": 0.0}},
    "unhashed.mp4": {},
}
EXPECTED = {
    "a.mp4": ("duplicate", "a-sharper.mp4"),
    "a-sharper.mp4": ("kept", None),
    "a-small.mp4": ("duplicate", "a-sharper.mp4"),
    "b.mp4": ("kept", None),
    "b-smaller.mp4": ("duplicate", "b.mp4"),
    "a-captioned.mp4": ("text_overlay", None),
    "a-faster.mp4": ("kept", None),
    "unhashed.mp4": ("kept", None),
}


def test_the_best_is_kept_and_the_others_name_it(tmp_path: Path) -> None:
    made = made_of(tmp_path, CLIPS)
    ends = decided(made)
    first, second = sorted(["b.png", "b-copy.png"], key=lambda name: clip(name).clip_id)
    assert ends == EXPECTED | {first: ("kept", None), second: ("duplicate", first)}
    rows = {row["path"]: row for row in read_manifest(made.output / "rejected").to_pylist()}
    row = rows["a.mp4"]
    assert (row["status"], row["stage"], row["value"], row["threshold"]) == (
        "rejected",
        "duplicates",
        pytest.approx(1 - 10 / 320),
        0.85,
    )
    assert row["motion_intensity"] == 5.0  # all stages measured it, and all is shown
    assert rows["a-captioned.mp4"]["duplicate_of"] is None


def test_the_bytes_do_not_depend_on_the_order_of_measuring(tmp_path: Path) -> None:
    one = made_of(tmp_path / "one", CLIPS)
    other = made_of(tmp_path / "one", CLIPS, list(reversed(CLIPS)), output=str(tmp_path / "other"))
    assert decided(one) == decided(other)
    for part in ("manifests/part-00000.parquet", "rejected/part-00000.parquet"):
        assert (one.output / part).read_bytes() == (other.output / part).read_bytes()


@pytest.mark.parametrize(("stage", "column"), [("embedding", "frame_embedding"), ("face", "face_embedding")])
def test_embeddings_that_differ_speak_against_a_copy(tmp_path: Path, stage: str, column: str) -> None:
    vectors = {"a.mp4": [1.0, 0.0], "b.mp4": [0.95, 0.312], "c.mp4": [0.0, 1.0], "d.mp4": None}
    clips = {name: {"hash": like(A), stage: {column: v}} for name, v in vectors.items()}
    for rank, name in enumerate(clips):
        clips[name]["quality"] = {"quality_score": 0.9 - rank / 10}
    assert decided(made_of(tmp_path, clips)) == {
        "a.mp4": ("kept", None),
        "b.mp4": ("duplicate", "a.mp4"),
        "c.mp4": ("kept", None),
        "d.mp4": ("duplicate", "a.mp4"),
    }


def test_deciding_again_with_another_threshold_needs_no_model(tmp_path: Path) -> None:
    made = made_of(tmp_path, {"a.mp4": {"hash": like(A)}, "b.mp4": {"hash": like(A, 20)}})
    save_config(made.output, made.config, made.engines)
    ends = decided(made)
    assert sorted(reason for reason, _ in ends.values()) == ["duplicate", "kept"]
    for value, kept in (("1", 2), ("0.93", 1), ("0.95", 2), ("0.85", 1)):
        assert decide_main([str(made.output), "--set", f"thresholds.max_duplicate_similarity={value}"]) == 0
        assert read_manifest(made.output).num_rows == kept
