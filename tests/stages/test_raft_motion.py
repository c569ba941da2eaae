"""The motion stage by RAFT: flow as torchvision gives it, columns as from any flow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import upstream_layouts
from flows.intensity import magnitude, motion_intensity
from stages import weights
from stages.base import Measured, Sample
from stages.clip import Clip, Kind
from stages.frames import Frames, FrameSpec
from stages.raft_motion import RaftMotion, RaftParams

torch = pytest.importorskip("torch")
optical_flow = pytest.importorskip("torchvision.models.optical_flow")
SPEC = FrameSpec(count=3, size=128)


def sample(seed: int, kind: Kind = "video") -> Sample:
    """A wide picture of smooth noise that moves; the crop takes its middle."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((1, 3, 20, 32), np.float32))
    wide = torch.nn.functional.interpolate(coarse, (160, 256), mode="bicubic").clamp(0, 1)[0]
    array = (wide.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    images = np.stack([array[seed * i : seed * i + 128, 2 * i : 2 * i + 200] for i in range(3)])
    columns = {"crop": [36.0, 0.0, 164.0, 128.0], "face_frames": [], "face_boxes": []}
    frames = Frames(images, np.arange(3) / 4, (200, 128), "pyav")
    return Sample(Clip("s", f"{seed}.mp4", kind, "1"), columns, frames)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    state = optical_flow.raft_small(weights=None).state_dict()
    state["update_block.flow_head.conv2.weight"] *= 20
    path = folder / weights.WEIGHTS["raft_small"].file
    path.parent.mkdir()
    torch.save(state, path)
    upstream_layouts.own(path, folder)
    return folder


@pytest.fixture(autouse=True)
def at(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.VARIABLE, str(files))


def measure(samples: list[Sample], **params: object) -> list[Measured]:
    engine = RaftMotion(RaftParams.model_validate({"model": "raft_small"} | params), SPEC)
    engine.setup("cpu")
    found = engine.measure(samples)
    assert all(isinstance(m, Measured) for m in found)
    return [m for m in found if isinstance(m, Measured)]


def test_m_is_that_of_torchvisions_flow_through_the_crop(files: Path) -> None:
    model = optical_flow.raft_small(weights=None).eval()
    model.load_state_dict(torch.load(files / weights.WEIGHTS["raft_small"].file))
    prepare = optical_flow.Raft_Small_Weights.DEFAULT.transforms()
    samples = [sample(1), sample(2, "image"), sample(4)]
    measured = measure(samples)
    for s, m in zip(samples, measured, strict=True):
        if s.clip.kind == "image":
            assert m.columns["motion_intensity"] == 0
            assert not m.arrays["magnitude"].any()
            continue
        grid = torch.from_numpy(s.images()[:, :, 36:164]).permute(0, 3, 1, 2)
        with torch.no_grad():
            flow = model(*prepare(grid[:-1], grid[1:]))[-1].permute(0, 2, 3, 1).numpy()
        expected = motion_intensity(magnitude(flow))
        assert expected > 0.3
        assert m.columns["motion_intensity"] == pytest.approx(expected, rel=1e-3)
        (alone,) = measure([s])
        assert alone.columns["motion_intensity"] == pytest.approx(m.columns["motion_intensity"], rel=1e-3)
    assert measured[0].columns["motion_intensity"] != measured[2].columns["motion_intensity"]


def test_half_precision_keeps_m_within_a_hundredth() -> None:
    (half,), (whole,) = measure([sample(1)], precision="float16"), measure([sample(1)])
    assert half.columns["motion_intensity"] != whole.columns["motion_intensity"]
    assert half.columns["motion_intensity"] == pytest.approx(whole.columns["motion_intensity"], rel=0.01)


def test_the_version_names_the_weights(files: Path) -> None:
    engine = RaftMotion(RaftParams(model="raft_small"), SPEC)
    assert weights.version(["raft_small"]) in engine.version()
    assert "raft_small=missing" not in engine.version()


def test_too_small_a_grid_and_missing_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"frames\.size: RAFT needs 128 or more, got 64"):
        RaftMotion(RaftParams(), FrameSpec(size=64))
    with pytest.raises(ValueError, match=r"raft_large: missing .*raft_large_C_T_SKHT_V2-ff5fadd5\.pth"):
        measure([sample(1)], model="raft_large")
