"""The similarity warp against known transforms and against scikit-image's."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training.align import TEMPLATE, box_to_template, similarity, to_template, warp  # noqa: E402


def test_similarity_finds_a_known_transform_and_agrees_with_skimage() -> None:
    from skimage.transform import SimilarityTransform

    rng = np.random.default_rng(0)
    points = rng.uniform(0, 500, (5, 2))
    known = SimilarityTransform(scale=0.3, rotation=0.4, translation=(7, -3))
    found = similarity(torch.tensor(points)[None], torch.tensor(known(points))[None])[0]
    np.testing.assert_allclose(found, known.params[:2], atol=1e-9)
    noisy = known(points) + rng.normal(0, 4, (5, 2))
    fitted = SimilarityTransform.from_estimate(points, noisy)
    np.testing.assert_allclose(similarity(torch.tensor(points)[None], torch.tensor(noisy)[None])[0], fitted.params[:2])


def test_landmarks_on_the_template_leave_the_image_as_it_is() -> None:
    image = torch.rand(1, 3, 112, 112)
    torch.testing.assert_close(warp(image, to_template(torch.tensor([TEMPLATE]))), image, atol=1e-3, rtol=0)


def test_a_bright_point_lands_on_the_template() -> None:
    template = torch.tensor(TEMPLATE)
    angle, scale = 0.3, 2.0
    rotation = scale * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    landmarks = template @ rotation.T + torch.tensor([60.0, 40.0])
    image = torch.zeros(1, 1, 320, 320)
    x, y = landmarks[2].round().long()  # the nose
    image[0, 0, y - 2 : y + 3, x - 2 : x + 3] = 1.0
    aligned = warp(image, to_template(landmarks[None]))[0, 0]
    row, column = divmod(int(aligned.argmax()), 112)
    assert abs(column - TEMPLATE[2][0]) <= 1.5
    assert abs(row - TEMPLATE[2][1]) <= 1.5


def test_height_and_width_are_not_swapped() -> None:
    image = torch.zeros(1, 1, 100, 300)
    image[..., 20:60, 220:260] = 1.0
    aligned = warp(image, box_to_template(torch.tensor([[220.0, 20.0, 260.0, 60.0]])))[0, 0]
    assert aligned[28:104, 18:94].min() > 0.95
    assert aligned[:, :12].max() == aligned[:20].max() == 0.0


def test_warp_is_differentiable_and_scales_with_size() -> None:
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    aligned = warp(image, box_to_template(torch.tensor([[16.0, 16.0, 48.0, 48.0]])), size=56)
    assert aligned.shape == (1, 3, 56, 56)
    aligned.sum().backward()
    assert image.grad is not None
    assert image.grad[..., 20:44, 20:44].abs().min() > 0
