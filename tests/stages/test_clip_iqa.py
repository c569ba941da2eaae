"""CLIP-IQA against pyiqa's own metric on the same TorchScript file of random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import upstream_layouts
from stages import weights
from stages.base import Measured, Sample
from stages.clip import Clip
from stages.clip_iqa import ClipIqa, ClipIqaParams
from stages.frames import Frames, FrameSpec

torch = pytest.importorskip("torch")
pytest.importorskip("pyiqa")


def sample(seed: int, h: int, w: int, count: int = 3) -> Sample:
    """Random smooth frames, so that the scores of different samples differ."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((count, 3, h // (8 * seed), w // (8 * seed)), np.float32))
    images = torch.nn.functional.interpolate(coarse, (h, w), mode="bicubic").clamp(0, 1)
    array = (images.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
    clip = Clip("s", f"{seed}.mp4", "video", "1")
    return Sample(clip, frames=Frames(array, np.arange(count) / 4, (w, h), "pyav"))


SAMPLES = [(1, 128, 160), (2, 160, 128), (3, 128, 160), (4, 128, 160)]


@pytest.fixture(scope="module")
def rn50(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    path = upstream_layouts.write_script(upstream_layouts.tiny_clip_resnet(), folder / "clip" / "RN50.pt", seed=1)
    upstream_layouts.own(path, folder)
    return path


@pytest.fixture
def at(rn50: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(weights.VARIABLE, str(rn50.parent.parent))
    return rn50


def scores(samples: list[Sample], precision: str = "auto") -> np.ndarray:
    engine = ClipIqa(ClipIqaParams.model_validate({"precision": precision}), FrameSpec())
    engine.setup("cpu")
    measured = engine.measure(samples)
    assert all(isinstance(m, Measured) for m in measured)
    assert [m.columns["quality_frame"] for m in measured] == [len(s.images()) // 2 for s in samples]
    return np.array([m.columns["quality_score"] for m in measured])


def test_equals_pyiqa_and_batched_equals_one_by_one(at: Path) -> None:
    import pyiqa

    samples = [sample(*s) for s in SAMPLES]
    metric = pyiqa.create_metric("clipiqa", device="cpu", backbone=str(at))
    expected = []
    for s in samples:
        image = torch.from_numpy(s.images()[1]).permute(2, 0, 1)[None] / 255
        expected.append(float(metric(image)))
    batched = scores(samples)
    assert np.ptp(batched) > 0.01, "equal scores would compare nothing"
    np.testing.assert_allclose(batched, expected, atol=1e-5)
    np.testing.assert_allclose([scores([s])[0] for s in samples], expected, atol=1e-5)


def test_half_precision_stays_within_a_hundredth(at: Path) -> None:
    samples = [sample(*s) for s in SAMPLES]
    half, whole = scores(samples, "float16"), scores(samples)
    assert not np.array_equal(half, whole)
    np.testing.assert_allclose(half, whole, atol=0.01)


def test_one_changed_weight_changes_the_score_and_the_version(
    at: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ClipIqa(ClipIqaParams(), FrameSpec())
    before, version = scores([sample(1, 128, 160)]), engine.version()
    state = weights.load_state_dict(at)
    state["visual.attnpool.c_proj.bias"][0] += 1
    (tmp_path / "clip").mkdir()
    torch.save(state, tmp_path / "clip" / "RN50.pt")
    upstream_layouts.own(tmp_path / "clip" / "RN50.pt", tmp_path)
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    assert abs(scores([sample(1, 128, 160)]) - before) > 1e-4
    assert engine.version() != version
    assert "clip-rn50=" in version


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match="clip-rn50: missing"):
        ClipIqa(ClipIqaParams(), FrameSpec()).setup("cpu")


def test_a_file_of_the_published_layout_loads_strictly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = upstream_layouts.clip_resnet()
    assert upstream_layouts.parameters(layout) == 102_007_137  # the count that CLIP's example notebook prints for it
    upstream_layouts.own(upstream_layouts.write(layout, tmp_path / "clip" / "RN50.pt"), tmp_path)
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    engine = ClipIqa(ClipIqaParams(), FrameSpec())
    engine.setup("cpu")
    visual = {f"visual.{name}": tuple(value.shape) for name, value in engine.model.state_dict().items()}
    assert visual == {name: shape for name, shape in layout.items() if name.startswith("visual.")}
    assert engine.text.shape == (10, 1024)
