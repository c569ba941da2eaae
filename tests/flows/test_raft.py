"""RAFT against torchvision's own path: its model called on pairs prepared by its weights' own transforms."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import upstream_layouts
from flows.intensity import magnitude, motion_intensity
from flows.raft import Raft

torch = pytest.importorskip("torch")
optical_flow = pytest.importorskip("torchvision.models.optical_flow")


def random_state(name: str, seed: int = 0) -> dict:
    """Random weights that move the flow: the flow head as initialised gives hundredths of a pixel."""
    torch.manual_seed(seed)
    model = getattr(optical_flow, name)(weights=None)
    state = model.state_dict()
    state["update_block.flow_head.conv2.weight"] *= 20
    return state


def reference(name: str, state: dict, frames: np.ndarray) -> np.ndarray:
    model = getattr(optical_flow, name)(weights=None).eval()
    model.load_state_dict(state)
    weights = optical_flow.Raft_Large_Weights if name == "raft_large" else optical_flow.Raft_Small_Weights
    images = torch.from_numpy(frames).permute(0, 3, 1, 2)
    with torch.no_grad():
        flow = model(*weights.DEFAULT.transforms()(images[:-1], images[1:]))[-1]
    return flow.permute(0, 2, 3, 1).numpy()


def frames(count: int, seed: int, h: int = 128, w: int = 136) -> np.ndarray:
    """Noise that moves, smooth enough to have correlations."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((count, 3, h // 8, w // 8), np.float32))
    fine = torch.nn.functional.interpolate(coarse, (h, w), mode="bilinear")
    return (fine.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["raft_large", "raft_small"])
def test_equals_torchvision_on_every_pair_of_several_clips(name: str) -> None:
    state = random_state(name)
    clips = [frames(4, seed=1), frames(2, seed=2), frames(1, seed=3)]
    found = Raft(state, name).flows(clips)
    assert [f.shape for f in found] == [(3, 128, 136, 2), (1, 128, 136, 2), (0, 128, 136, 2)]
    for clip, flow in zip(clips[:2], found[:2], strict=True):
        expected = reference(name, state, clip)
        assert np.abs(expected).mean() > 0.3, "a flow of nothing would compare nothing"
        assert flow.dtype == np.float32
        np.testing.assert_allclose(flow, expected, atol=2e-3, rtol=1e-3)


def test_batched_equals_one_by_one_whatever_the_chunks() -> None:
    state = random_state("raft_small")
    clips = [frames(4, seed=1), frames(3, seed=2)]
    whole = Raft(state, "raft_small").flows(clips)
    chunked = Raft(state, "raft_small", max_pairs=2).flows(clips)
    single = [Raft(state, "raft_small").flows([clip])[0] for clip in clips]
    for a, b, c in zip(whole, chunked, single, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3, rtol=1e-3)
        np.testing.assert_allclose(a, c, atol=2e-3, rtol=1e-3)


def test_one_changed_weight_changes_the_flow() -> None:
    state = random_state("raft_small")
    before = Raft(state, "raft_small").flows([frames(2, seed=1)])[0]
    state["update_block.flow_head.conv2.bias"][0] += 0.5
    after = Raft(state, "raft_small").flows([frames(2, seed=1)])[0]
    assert np.abs(after - before).mean() > 0.1


@pytest.mark.parametrize("name", ["raft_large", "raft_small"])
def test_convolutions_run_channels_last_and_give_the_flow_of_the_default_layout(name: str) -> None:
    state, clip = random_state(name), frames(2, seed=1)
    raft = Raft(state, name)
    last: list[bool] = []

    def note(convolution: object, inputs: tuple, output: torch.Tensor) -> None:
        last.append(output.is_contiguous(memory_format=torch.channels_last))

    convolutions = [module for module in raft.model.modules() if isinstance(module, torch.nn.Conv2d)]
    for convolution in convolutions:
        convolution.register_forward_hook(note)
    found = raft.flows([clip])[0]
    assert len(last) > len(convolutions) > 30
    assert all(last)
    np.testing.assert_allclose(found, reference(name, state, clip), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["raft_large", "raft_small"])
@pytest.mark.parametrize("head", [0.05, 0.2])
def test_half_precision_keeps_m_within_a_hundredth(name: str, head: float) -> None:
    state = random_state(name)
    state["update_block.flow_head.conv2.weight"] *= head
    clip = frames(3, seed=1)
    whole, half = (Raft(state, name, half=h).flows([clip])[0] for h in (False, True))
    assert not np.array_equal(half, whole)
    m = motion_intensity(magnitude(whole))
    assert 3 < m < 50
    assert motion_intensity(magnitude(half)) == pytest.approx(m, rel=0.01)


def test_what_does_not_fit_is_refused() -> None:
    state = random_state("raft_small")
    with pytest.raises(ValueError, match="not a state dict of torchvision's raft_large"):
        Raft(state, "raft_large")
    raft = Raft(state, "raft_small")
    for size in ((120, 128), (128, 132)):
        with pytest.raises(ValueError, match=rf"from 128 in multiples of 8, got {size[1]} x {size[0]}"):
            raft.flows([frames(2, 1, *size)])
    assert raft.flows([]) == []


@pytest.mark.parametrize(("name", "count"), [("raft_large", 5257536), ("raft_small", 990162)])
def test_files_of_the_published_layout_load_strictly(name: str, count: int, tmp_path: Path) -> None:
    # the counts are those of torchvision's metadata of the published weights
    layout = getattr(upstream_layouts, name)()
    assert upstream_layouts.parameters(layout) == count
    state = torch.load(upstream_layouts.write(layout, tmp_path / "raft.pth"), weights_only=True)
    loaded = Raft(state, name).model.state_dict()
    assert {key: tuple(value.shape) for key, value in loaded.items()} == layout
    del state["feature_encoder.conv.bias"]
    with pytest.raises(ValueError, match=r"feature_encoder\.conv\.bias"):
        Raft(state, name)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_equals_not_compiled() -> None:
    state, clip = random_state("raft_small"), frames(2, seed=1)
    plain, compiled = (Raft(state, "raft_small", compile=c).flows([clip])[0] for c in (False, True))
    np.testing.assert_allclose(compiled, plain, atol=5e-3, rtol=1e-3)
