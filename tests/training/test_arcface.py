"""phi: the margin loss, the small network, and an ONNX file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx2torch")

from training.arcface import load_onnx, margin_loss, small_arcface, train_small  # noqa: E402

IDENTITY = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_margin_loss_is_cross_entropy_over_shifted_angles() -> None:
    theta = 0.4
    embedding = 3.0 * torch.tensor([[math.cos(theta), math.sin(theta)]])
    centres = torch.tensor([[2.0, 0.0], [0.0, 0.5]])
    true, other = 16 * math.cos(theta + 0.3), 16 * math.cos(math.pi / 2 - theta)
    expected = math.log(math.exp(true) + math.exp(other)) - true
    assert margin_loss(embedding, centres, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-4)


def test_the_margin_costs() -> None:
    embedding, centres, labels = torch.randn(8, 4), torch.randn(3, 4), torch.randint(0, 3, (8,))
    without = margin_loss(embedding, centres, labels, margin=0.0)
    assert margin_loss(embedding, centres, labels, margin=0.3) > without


def test_a_small_one_learns_to_tell_identities_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    looks = torch.rand(3, 3, 8, 8, generator=generator) * 2 - 1

    def faces(labels: torch.Tensor) -> torch.Tensor:
        noise = 0.3 * torch.randn(len(labels), 3, 8, 8, generator=generator)
        return torch.nn.functional.interpolate(looks[labels] + noise, (32, 32))

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        while True:
            labels = torch.randint(0, 3, (12,), generator=generator)
            yield faces(labels), IDENTITY.mul(112 / 32).expand(12, -1, -1), labels

    arcface = train_small(batches(), identities=3, steps=25, seed=0)
    labels = torch.arange(3).repeat(4)
    embeddings = torch.nn.functional.normalize(arcface(faces(labels), IDENTITY.mul(112 / 32).expand(12, -1, -1)))
    cosine = embeddings @ embeddings.T
    same = labels[:, None] == labels
    assert cosine[same].min() > cosine[~same].max() + 0.2


def test_one_identity_is_refused() -> None:
    with pytest.raises(ValueError, match="needs clips of two identities or more, the manifest has 1"):
        train_small(iter(()), identities=1, steps=1, seed=0)


def test_it_stays_frozen_in_eval_mode_and_passes_gradients_to_the_image() -> None:
    arcface = small_arcface().train()
    assert not arcface.network.training
    assert not any(p.requires_grad for p in arcface.parameters())
    image = torch.rand(1, 3, 40, 40, requires_grad=True)
    arcface(image, IDENTITY[None] * 2.8).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_it_computes_in_float32_under_autocast_too() -> None:
    arcface = small_arcface()
    image = torch.rand(2, 3, 40, 40)
    expected = arcface(image, IDENTITY.expand(2, -1, -1) * 2.8)
    with torch.autocast("cpu", torch.bfloat16):
        found = arcface(image, IDENTITY.expand(2, -1, -1) * 2.8)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_a_fit_without_arcface_trains_a_small_one_once_and_says_so(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("diffusers")
    from training.config import fit_config
    from training.data import Manifest
    from training.prepare import trained_arcface

    manifest = Manifest.read(run_folder, "train")
    config = fit_config("embedded", ["size=16", "arcface_steps=1"])
    first = trained_arcface(manifest, tmp_path / "arcface.safetensors", config, None)
    assert "no ArcFace is loaded (arcface=train): a small one learns 9 identities\n" in capsys.readouterr().err
    again = trained_arcface(manifest, tmp_path / "arcface.safetensors", config, None)
    assert capsys.readouterr().err == ""
    for name, tensor in first.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], tensor), name


def write_onnx(path: Path, pooled: bool = True) -> np.ndarray:
    """A model in the layout of insightface's: (n, 3, 112, 112) -> (n, 5). Returns its matrix (3, 5)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    matrix = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["pooled"])]
    if pooled:
        nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], axis=1))
        nodes.append(helper.make_node("MatMul", ["flat", "w"], ["y"]))
    else:
        nodes.append(helper.make_node("Identity", ["pooled"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "arcface",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(matrix, "w")] if pooled else [],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return matrix


def test_an_onnx_file_becomes_a_differentiable_phi(tmp_path: Path) -> None:
    matrix = write_onnx(tmp_path / "arc.onnx")
    arcface = load_onnx(tmp_path / "arc.onnx")
    assert arcface.dim == 5
    image = torch.rand(2, 3, 112, 112, requires_grad=True)
    embedding = arcface(image, IDENTITY.expand(2, -1, -1))
    expected = image.detach().mean((2, 3)).numpy() @ matrix
    np.testing.assert_allclose(embedding.detach().numpy(), expected, atol=1e-4)
    embedding[0, 0].backward()
    assert image.grad is not None
    assert image.grad[0].abs().min() > 0
    assert image.grad[1].abs().max() == 0


def test_an_onnx_file_that_gives_no_embedding_is_refused(tmp_path: Path) -> None:
    write_onnx(tmp_path / "other.onnx", pooled=False)
    with pytest.raises(ValueError, match=r"other.onnx: gives an output of shape \(1, 3, 1, 1\), not an embedding"):
        load_onnx(tmp_path / "other.onnx")


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"no model at all")
    with pytest.raises(ValueError, match=r"other\.onnx: is no ONNX model that can be used: "):
        load_onnx(tmp_path / "other.onnx")
