"""The dataset over a manifest of real files."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from stages.base import ClipError  # noqa: E402
from stages.decode import Decoder  # noqa: E402
from tests.training.conftest import draw_face, write_video  # noqa: E402
from training.batch import collate  # noqa: E402
from training.cache import Cache  # noqa: E402
from training.config import FitConfig, fit_config  # noqa: E402
from training.data import ClipDataset, DataError, Manifest, mirrored  # noqa: E402
from training.draws import Draw  # noqa: E402


def config(*overrides: str) -> FitConfig:
    return fit_config("embedded", ["size=64", "flip=0", *overrides])


@pytest.fixture(scope="module")
def manifest(run_folder: Path) -> Manifest:
    return Manifest.read(run_folder, "train")


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_video_is_the_frame_grid(manifest: Manifest) -> None:
    row = manifest.rows[0]
    sample = ClipDataset(manifest, config()).load(row, rng())
    with Decoder(60) as decoder:
        location = str(Path(manifest.roots["drawn"]) / row["path"])
        frames = decoder.frames(location, "video", manifest.spec, decoder.header(location, "video"))
    grid = frames.through(row["crop"])
    assert torch.equal(sample.video, torch.from_numpy(grid).permute(0, 3, 1, 2) / 127.5 - 1)
    assert sample.video.shape == (4, 3, 64, 64)
    assert (sample.m, sample.action, sample.caption) == (2.0, "moves left", row["caption"])


def test_the_reference_is_a_frame_that_is_not_denoised(manifest: Manifest) -> None:
    dataset = ClipDataset(manifest, config())
    row = next(row for row in manifest.rows if row["motion_intensity"] == 4.0)
    fine = dataset.frames(row)
    for seed in range(8):
        sample = dataset.load(row, np.random.default_rng(seed))
        matches = [torch.equal(sample.reference, frame) for frame in sample.video]
        assert not any(matches)
        halfway = torch.from_numpy(fine[1::2]).permute(0, 3, 1, 2) / 127.5 - 1
        assert any(torch.equal(sample.reference, frame) for frame in halfway)


def test_the_reference_is_none_of_the_frames_where_the_file_has_no_others(manifest: Manifest, tmp_path: Path) -> None:
    row = next(row for row in manifest.rows if row["motion_intensity"] == 4.0)
    # 4 frames a second, as many as the grid: what lies halfway is one of its frames
    write_video(tmp_path / row["path"], [draw_face((200, 80, 40), 20 + 4 * i) for i in range(5)], 4)
    coarse = dataclasses.replace(manifest, roots={"drawn": str(tmp_path)})
    for seed in range(8):
        sample = ClipDataset(coarse, config()).load(row, np.random.default_rng(seed))
        assert not any(torch.equal(sample.reference, frame) for frame in sample.video)


def test_flip_takes_video_flow_landmarks_and_text_along(manifest: Manifest) -> None:
    plain = ClipDataset(manifest, config()).load(manifest.rows[0], rng())
    flipped = ClipDataset(manifest, config("flip=1")).load(manifest.rows[0], rng())
    assert torch.equal(flipped.video, plain.video.flip(-1))
    assert torch.equal(flipped.flow, plain.flow.flip(-1))
    assert not torch.equal(flipped.flow, plain.flow)
    assert flipped.action == "moves right"
    assert "moves right" in flipped.caption
    assert flipped.m == plain.m
    # A mirrored face aligns upright and as large as before, which it would not with left and right mixed up.
    assert flipped.id_warps[0, 0, 0].item() == pytest.approx(plain.id_warps[0, 0, 0].item(), rel=0.03)
    assert abs(flipped.id_warps[0, 0, 1]) < 0.05


def test_zoom_scales_m(manifest: Manifest) -> None:
    sample = ClipDataset(manifest, config("zoom=2")).load(manifest.rows[0], rng())
    assert 2.0 < sample.m <= 4.0


def test_a_still_is_equal_frames_without_motion_and_its_reference_is_not_itself(manifest: Manifest) -> None:
    row = next(row for row in manifest.rows if row["kind"] == "image")
    sample = ClipDataset(manifest, config()).load(row, rng())
    assert all(torch.equal(frame, sample.video[0]) for frame in sample.video)
    assert sample.m == 0.0
    assert sample.flow.sum() == 0
    moved = [ClipDataset(manifest, config()).load(row, np.random.default_rng(seed)).reference for seed in range(4)]
    assert any(not torch.equal(reference, sample.video[0]) for reference in moved)


def test_splits(run_folder: Path) -> None:
    train, val = (Manifest.read(run_folder, split) for split in ("train", "val"))
    assert (len(train.rows), len(val.rows)) == (9, 4)
    assert train.weights.tolist() == [row["sample_weight"] for row in train.rows]


def test_an_unreadable_clip_is_replaced_named_and_counted(manifest: Manifest) -> None:
    broken = dict(manifest.rows[0]) | {"path": "person0/gone.mp4"}
    dataset = ClipDataset(dataclasses.replace(manifest, rows=[broken, *manifest.rows[1:]]), config())
    sample = dataset[Draw(0, 5)]
    assert sample.clip_id != broken["clip_id"]
    [(clip_id, reason)] = sample.skipped
    assert clip_id == broken["clip_id"]
    assert reason.startswith("drawn/person0/gone.mp4: ")
    again = dataset[Draw(0, 5)]
    assert again.clip_id == sample.clip_id
    assert torch.equal(again.video, sample.video)
    assert collate([sample, dataset[Draw(1, 6)]]).skipped == sample.skipped


@pytest.mark.parametrize("damage", ["other", "empty", "cut", "changed", "packed"])
def test_damaged_flow_is_the_clips_failure(manifest: Manifest, tmp_path: Path, damage: str) -> None:
    row = dict(manifest.rows[0]) | {"flow_path": "flow.npz"}
    content = (manifest.folder / manifest.rows[0]["flow_path"]).read_bytes()
    if damage == "packed":
        np.savez_compressed(tmp_path / "flow.npz", magnitude=np.arange(192, dtype=np.uint8).reshape(3, 8, 8))
        content = (tmp_path / "flow.npz").read_bytes()
    middle = bytes(255 - byte for byte in content[60:160])
    damaged = {"other": b"no archive", "empty": b"", "cut": content[: len(content) // 2]}
    (tmp_path / "flow.npz").write_bytes(damaged.get(damage, content[:60] + middle + content[160:]))
    with pytest.raises(ClipError, match=r"flow flow\.npz cannot be read"):
        ClipDataset(dataclasses.replace(manifest, folder=tmp_path), config()).load(row, rng())


def test_flow_of_another_size_is_the_clips_failure(manifest: Manifest, tmp_path: Path) -> None:
    row = dict(manifest.rows[0]) | {"flow_path": "flow.npz"}
    np.savez(tmp_path / "flow.npz", magnitude=np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(ClipError, match=r"flow.npz has shape \(2, 8, 8\), expected \(3, 8, 8\)"):
        ClipDataset(dataclasses.replace(manifest, folder=tmp_path), config()).load(row, rng())


def test_a_crop_within_an_unknown_part_of_the_picture_is_refused(manifest: Manifest) -> None:
    row = dict(manifest.rows[0]) | {"crop": [0.0, 0.0, 32.0, 32.0]}
    dataset = ClipDataset(manifest, config())
    with pytest.raises(ClipError, match="in a part of the picture that the manifest does not name"):
        dataset.load(row, rng())
    part = dataset.frames(row | {"source_box": [0.5, 0.0, 1.0, 0.5]})
    whole = dataset.frames(manifest.rows[0])
    assert part.shape == whole.shape
    enlarged = np.kron(whole[0, :32, 32:, 0], np.ones((2, 2)))
    assert np.abs(part[0, :, :, 0] - enlarged).mean() < 6


def test_when_nothing_can_be_read_training_stops(manifest: Manifest) -> None:
    dataset = ClipDataset(dataclasses.replace(manifest, roots={}), config())
    with pytest.raises(DataError, match=r"10 clips in a row cannot be read; .*no root is known for source drawn"):
        dataset[Draw(0, 0)]


def test_the_cache_gives_the_same_frames_without_the_files(manifest: Manifest, tmp_path: Path) -> None:
    source = tmp_path / "moved"
    shutil.copytree(manifest.roots["drawn"], source)
    moved = dataclasses.replace(manifest, roots={"drawn": str(source)})
    dataset = ClipDataset(moved, config("size=32"), cache=Cache(tmp_path / "cache"))
    frames = dataset.frames(moved.rows[0])
    assert frames.shape == (7, 32, 32, 3)
    [kept] = (tmp_path / "cache").rglob("*.npy")
    kept.write_bytes(kept.read_bytes()[:200])
    assert np.array_equal(dataset.frames(moved.rows[0]), frames)  # a file that was cut short is made anew
    shutil.rmtree(source)
    assert np.array_equal(dataset.frames(moved.rows[0]), frames)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Left hand up, turns right", "Right hand up, turns left"),
        ("leans leftwards", "leans rightwards"),
        ("a bright, cleft chin", "a bright, cleft chin"),
    ],
)
def test_a_mirrored_text_swaps_sides(text: str, expected: str) -> None:
    assert mirrored(text, True) == expected
    assert mirrored(text, False) == text


def test_a_package_folder_is_no_manifest() -> None:
    here = Path(__file__).parents[2] / "manifests"
    with pytest.raises(ValueError, match=r"no Parquet shards; a run writes its manifest to OUTPUT/manifests"):
        Manifest.read(here, "train")
