"""DOVER's views and fusion: frames drawn, fragments, enlarging."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")

from tests.training.metrics.test_definitions import noise  # noqa: E402
from training.metrics import dover  # noqa: E402


def test_dovers_frames_of_a_short_and_a_long_video() -> None:
    random = np.random.default_rng(0)
    # 16 frames: thirds of 5; every second frame from 0, 5 and 10, from the start again after the end
    first, second, third = dover.frame_indices(16, 3, 32, random).reshape(3, 32)
    assert first[:10].tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 0, 2]
    assert second[:7].tolist() == [5, 7, 9, 11, 13, 15, 1]
    assert third[:5].tolist() == [10, 12, 14, 0, 2]
    assert set(dover.frame_indices(16, 32, 1, random)) == {0}  # fewer frames than parts: the first one
    long = dover.frame_indices(320, 32, 1, random)
    assert all(10 * i <= frame < 10 * i + 8 for i, frame in enumerate(long))
    assert len(set(np.diff(long))) > 1  # drawn


def test_dovers_views(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.repeat(noise(6, 1, 448, 448, 3), 40, axis=0)
    view = dover.technical_view(frames)
    assert view.shape == (3, 3, 32, 224, 224)
    assert torch.equal(view, dover.technical_view(frames))  # the same places every time
    back = (view[0, :, 0].permute(1, 2, 0) * torch.tensor(dover.STD) + torch.tensor(dover.MEAN)).round().numpy()
    patch = back[32:64, 64:96]  # row 1, column 2: somewhere in the cell from (64, 128)
    places = [(y, x) for y in range(64, 96) for x in range(128, 160) if np.array_equal(frames[0, y, x], patch[0, 0])]
    assert any(np.array_equal(frames[0, y : y + 32, x : x + 32], patch) for y, x in places)
    small = dover.technical_view(np.full((4, 100, 150, 3), 77, np.uint8))
    np.testing.assert_allclose(small[0, :, 0, 100, 100], (77 - np.array(dover.MEAN)) / np.array(dover.STD), rtol=1e-5)
    assert dover.aesthetic_view(frames).shape == (1, 3, 32, 224, 224)


def test_dover_enlarges_small_frames_as_its_authors_do() -> None:
    frames = np.zeros((1, 112, 112, 3), np.uint8)
    frames[:, :, 56:] = 255
    large = dover.enlarged(frames)
    assert large.shape == (1, 224, 224, 3)
    assert large[0, 100, 110:114, 0].tolist() == [0, 63, 191, 255]  # 63.75 and 191.25, cut off
    assert dover.enlarged(large) is large


def test_dovers_fusion() -> None:
    assert dover.fused(0.1107, -0.08285).value == 0.5
    one_up = dover.fused(0.1107 + 0.07355, -0.08285)
    assert one_up.value == pytest.approx(1 / (1 + np.exp(-0.6104)))
    assert dover.fused(0.1107, -0.08285 + 0.03774).value == pytest.approx(1 / (1 + np.exp(-0.3896)))
    assert one_up.details == {"technical": 0.1107 + 0.07355, "aesthetic": -0.08285}
