"""The table of model files: lookup order, hashes, and what a missing file's error says."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from stages import weight_table, weights


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path / "mine"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "mine"


def put(path: Path, content: bytes, sums: Path | None = None) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    if sums is not None:
        with sums.open("a") as file:
            file.write(f"{digest}  {path.relative_to(sums.parent).as_posix()}\n")
    return digest


def test_the_table_is_complete() -> None:
    assert len(weights.WEIGHTS) == len(weight_table._ALL)
    assert len({w.file for w in weights.WEIGHTS.values()}) == len(weights.WEIGHTS)
    for weight in weights.WEIGHTS.values():
        assert weight.licence
        assert weight.origin.startswith("https://")
        if weight.sha256 is not None:
            assert re.fullmatch("[0-9a-f]{64}", weight.sha256), weight.name
    for name in ("det_10g", "w600k_r50", "scrfd_500m_kps", "scrfd_2.5g_kps"):
        assert "non-commercial" in weights.WEIGHTS[name].licence


def test_the_publishers_own_short_hashes_agree() -> None:
    # CLIP's addresses hold the whole hash, torchvision's file names its first eight digits
    for name in ("clip-rn50", "clip-vit-b-32", "clip-vit-l-14"):
        assert f"/{weights.WEIGHTS[name].sha256}/" in weights.WEIGHTS[name].origin
    for name in ("raft_large", "raft_small"):
        sha256 = weights.WEIGHTS[name].sha256
        assert sha256 is not None
        assert weights.WEIGHTS[name].file.endswith(f"-{sha256[:8]}.pth")


def test_real_detectors_are_found_and_match(shared: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv(weights.VARIABLE, f"{folder}:{shared / 'weights'}")
    found = weights.require(["scrfd_2.5g_kps", "scrfd_500m_kps"])
    assert found["scrfd_2.5g_kps"] == shared / "weights" / "insightface" / "scrfd_2.5g_kps.onnx"
    assert weights.version(["scrfd_2.5g_kps", "clip-rn50"]) == "scrfd_2.5g_kps=32d20c77b9e2dc1d clip-rn50=missing"


def test_missing_files_are_all_named_with_address_licence_and_place(folder: Path) -> None:
    with pytest.raises(ValueError) as error:
        weights.require(["w600k_r50", "scrfd_500m_kps"])
    first, second = str(error.value).splitlines()[1:]
    assert "w600k_r50: missing (non-commercial research only (deepinsight/insightface), 174 MB)" in first
    assert "python -m curation.weights fetch w600k_r50" in first
    assert "releases/download/v0.7/buffalo_l.zip (w600k_r50.onnx in the archive)" in first
    assert f"put it at {folder}/insightface/w600k_r50.onnx" in first
    assert "get it by hand from https://github.com/deepinsight/insightface/" in second
    assert weights.missing(["w600k_r50", "scrfd_500m_kps"]) == ["w600k_r50", "scrfd_500m_kps"]


def test_a_changed_file_is_refused_unless_its_owner_states_its_hash(folder: Path) -> None:
    path = folder / "clip" / "RN50.pt"
    digest = put(path, b"not the published one")
    with pytest.raises(ValueError, match=rf"clip-rn50: {path} is not the published file: sha256 is {digest}"):
        weights.require(["clip-rn50"])
    put(path, b"not the published one", sums=folder / weights.SUMS)
    assert weights.require(["clip-rn50"]) == {"clip-rn50": path}
    path.write_bytes(b"and now broken")
    with pytest.raises(ValueError, match=f"expected {digest}"):
        weights.require(["clip-rn50"])


def test_ones_own_folder_comes_before_the_libraries_caches(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "home" / ".cache" / "clip" / "RN50.pt", b"in the cache of clip")
    assert weights.find("clip-rn50") == tmp_path / "home" / ".cache" / "clip" / "RN50.pt"
    put(folder / "clip" / "RN50.pt", b"in the folder")
    assert weights.find("clip-rn50") == folder / "clip" / "RN50.pt"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    raft = tmp_path / "torch" / "hub" / "checkpoints" / "raft_small_C_T_V2-01064c6d.pth"
    put(raft, b"in the cache of torch")
    assert weights.find("raft_small") == raft


def test_needed_asks_the_engines_that_have_weights() -> None:
    class With:
        def weights(self) -> tuple[str, ...]:
            return ("clip-rn50", "raft_large")

    class Without:
        pass

    assert weights.needed([Without(), With(), With()]) == ("clip-rn50", "raft_large")


def test_state_dicts_are_read_without_running_their_code(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"module.w": torch.arange(3.0)}, tmp_path / "plain.pth")
    assert weights.load_state_dict(tmp_path / "plain.pth")["w"].tolist() == [0, 1, 2]
    torch.save({"w": torch.arange(3.0)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert weights.load_state_dict(tmp_path / "old.pth")["w"].tolist() == [0, 1, 2]

    linear = torch.nn.Linear(2, 1)
    torch.jit.save(torch.jit.script(linear), tmp_path / "script.pt")
    assert torch.equal(weights.load_state_dict(tmp_path / "script.pt")["weight"], linear.weight)

    torch.save(replace(weights.WEIGHTS["clip-rn50"]), tmp_path / "code.pth")
    with pytest.raises(Exception, match="Weights only load failed"):
        weights.load_state_dict(tmp_path / "code.pth")
