"""Known answers for every loss."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from training.losses import identity_loss, predicted_z0, region_loss, region_weight, total_loss  # noqa: E402


def test_eq_9_weights() -> None:
    flow = torch.tensor([0.0, 100.0, 127.5, 191.25, 255.0]).view(1, 1, 1, 5).expand(1, 2, 1, 5)
    weight = region_weight(flow, frames=3, size=(1, 5))
    assert weight.shape == (1, 3, 1, 5)
    assert weight[0, 0, 0].tolist() == [1.0, 1.0, 1.0, 1.25, 1.5]


def test_eq_9_the_last_of_n_minus_1_maps_serves_the_last_frame_and_maps_are_averaged_down() -> None:
    flow = torch.zeros(1, 2, 4, 4, dtype=torch.uint8)
    flow[0, 1, :2, :2] = 255  # second pair, top left
    weight = region_weight(flow, frames=3, size=(2, 2))
    assert weight[0, 0].tolist() == [[1, 1], [1, 1]]
    assert weight[0, 1].tolist() == weight[0, 2].tolist() == [[1.5, 1], [1, 1]]


def test_eq_10_is_the_weighted_mean_and_without_weight_plain_mse() -> None:
    prediction, target = torch.zeros(1, 2, 2, 1, 2), torch.zeros(1, 2, 2, 1, 2)
    prediction[0, :, 1, 0, 1] = 3.0  # second frame, second pixel, both channels
    weight = torch.ones(1, 2, 1, 2)
    weight[0, 1, 0, 1] = 1.5
    assert region_loss(prediction, target).tolist() == [9 * 2 / 8]
    assert region_loss(prediction, target, weight).tolist() == [1.5 * 9 * 2 / 8]
    weight[0, 1, 0, 1], weight[0, 0, 0, 1] = 1.0, 1.5  # the weight of another frame does not count
    assert region_loss(prediction, target, weight).tolist() == [9 * 2 / 8]


def test_eq_4_identity_loss() -> None:
    e = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    generated = torch.tensor([[[5.0, 0.0], [1.0, 1.0]], [[0.0, -1.0], [0.0, -3.0]]])
    expected = [1 - (1 + math.sqrt(0.5)) / 2, 2.0]
    assert identity_loss(e, generated).tolist() == pytest.approx(expected)


def test_eq_11_total() -> None:
    assert total_loss(torch.tensor(2.0), torch.tensor(0.5), beta=0.1).item() == pytest.approx(2.05)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_z0_comes_back_from_the_true_prediction(kind: str) -> None:
    torch.manual_seed(0)
    z0, noise = torch.randn(2, 4, 3, 2, 2), torch.randn(2, 4, 3, 2, 2)
    alpha_bar = torch.tensor([0.9, 0.2])
    a = alpha_bar.view(-1, 1, 1, 1, 1)
    z_t = a.sqrt() * z0 + (1 - a).sqrt() * noise
    truth = noise if kind == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * z0
    torch.testing.assert_close(predicted_z0(truth, z_t, alpha_bar, kind), z0, rtol=1e-4, atol=1e-5)


def test_error_of_z0_grows_with_the_noise_as_published() -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="linear")
    a = scheduler.alphas_cumprod
    growth = ((1 - a) / a).sqrt()
    assert growth[299].item() == pytest.approx(1.07, abs=0.03)
    assert growth[999].item() == pytest.approx(25, abs=1)
