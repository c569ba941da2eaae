"""Checkpoints: whole or not at all; a damaged one is refused and the one before it used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from training import checkpoint as checkpoints  # noqa: E402


def write(folder: Path, step: int, keep: int = 3) -> checkpoints.Checkpoint:
    tensors = {"weights": {"a": torch.full((3,), float(step))}, "ema": {"a": torch.zeros(3)}}
    return checkpoints.save(folder, step, {"x": step}, tensors, {"lr": step}, {"words.txt": "left right"}, keep)


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    written = write(tmp_path, 7)
    found, refused = checkpoints.newest(tmp_path)
    assert (found, refused) == (written, [])
    assert (written.step, written.config(), written.optimizer()) == (7, {"x": 7}, {"lr": 7})
    assert written.weights()["a"].tolist() == [7, 7, 7]
    assert written.weights(ema=True)["a"].tolist() == [0, 0, 0]
    assert written.extra() == {}


def test_what_a_killed_run_left_half_written_goes(tmp_path: Path) -> None:
    left = tmp_path / ".step-00000001.0123.tmp"
    left.mkdir()
    (left / "weights.safetensors").write_bytes(bytes(100))
    assert checkpoints.newest(tmp_path) == (None, [])
    written = write(tmp_path, 1)
    assert list(tmp_path.iterdir()) == [written.folder]


def test_the_oldest_go(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        write(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("weights.safetensors", "flip", "weights.safetensors: is damaged, its hash is not the one in SHA256SUMS"),
        ("config.json", "remove", "config.json: is missing"),
        ("SHA256SUMS", "remove", "not a checkpoint, it has no SHA256SUMS"),
    ],
)
def test_a_damaged_one_is_refused_and_the_one_before_used(tmp_path: Path, file: str, damage: str, message: str) -> None:
    older, newer = write(tmp_path, 1), write(tmp_path, 2)
    path = newer.folder / file
    if damage == "flip":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    found, refused = checkpoints.newest(tmp_path)
    assert found == older
    assert len(refused) == 1
    assert message in refused[0]


def test_a_deleted_optimizer_is_no_damage(tmp_path: Path) -> None:
    written = write(tmp_path, 1)
    (written.folder / "optimizer.pt").unlink()
    written.verify()


@pytest.mark.parametrize("large", ["weights", "optimizer", "text"])
def test_a_full_disk_loses_nothing_that_was_written_before(small_disk: Path, large: str) -> None:
    older = write(small_disk, 1)
    sizes = {name: 2**19 if name == large else 1 for name in ("weights", "optimizer", "text")}
    tensors = {"weights": {"a": torch.zeros(sizes["weights"])}, "ema": {"a": torch.zeros(3)}}
    optimizer, texts = {"m": torch.zeros(sizes["optimizer"])}, {"words.txt": "word" * sizes["text"]}
    with pytest.raises(OSError, match="No space left on device") as caught:
        checkpoints.save(small_disk, 2, {"x": 2}, tensors, optimizer, texts, 3)
    said = str(caught.value)
    assert said.startswith(f"{small_disk}/step-00000002: cannot be written: ")
    assert said.endswith("; what was written before is whole")
    assert "\n" not in said
    assert list(small_disk.iterdir()) == [older.folder]
    assert checkpoints.newest(small_disk) == (older, [])
    assert write(small_disk, 2).step == 2  # what was half written takes no room


def test_a_checkpoint_of_another_version_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    from training.config import fit_config
    from training.pipeline import fit_config_of

    config = fit_config("embedded").model_dump(mode="json")
    (tmp_path / "config.json").write_text(json.dumps({"config": config}))
    assert fit_config_of(checkpoints.Checkpoint(tmp_path)) == fit_config("embedded")
    (tmp_path / "config.json").write_text(json.dumps({"config": config | {"newer": 1}}))
    with pytest.raises(ValueError, match=r"config\.json: newer: Extra inputs are not permitted: ") as caught:
        fit_config_of(checkpoints.Checkpoint(tmp_path))
    assert str(caught.value).endswith("the checkpoint is of another version of human-motion; load it with that version")
    assert "\n" not in str(caught.value)
