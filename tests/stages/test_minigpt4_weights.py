"""MiniGPT-4's weights: published layouts, and parity with transformers' BLIP-2 and LAVIS's ViT."""

# ruff: noqa: F811 (fixtures)
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import upstream_layouts
from benchmarks.minigpt4_files import tiny_config
from stages import minigpt4_weights, weights
from tests import minigpt4_layouts
from tests.stages.tiny_minigpt4 import (  # noqa: F401
    BLUE,
    LLAMA,
    QFORMER,
    RED,
    SIZE,
    VIT,
    engine_of,
    random_state,
    sample,
    tiny,
    torch,
    transformers,
    untrained,
)

# --- layouts at full size ---------------------------------------------------------------------------------------------


def meta(layout: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    return {name: torch.empty(shape, device="meta") for name, shape in layout.items()}


@pytest.mark.parametrize(("tokens", "parameters"), [(32000, 6_738_415_616), (32001, 6_738_423_808)])
def test_the_published_files_fit_the_full_architecture(tmp_path: Path, tokens: int, parameters: int) -> None:
    transformers.LlamaConfig(vocab_size=tokens).save_pretrained(tmp_path)
    config = minigpt4_weights.config_of(tmp_path, None)
    image_side = minigpt4_weights.from_lavis(
        meta(minigpt4_layouts.eva_vit()), meta(minigpt4_layouts.qformer()), config.vision_config.num_hidden_layers
    )
    image_side |= minigpt4_weights.from_minigpt4(meta(minigpt4_layouts.minigpt4()))
    model = minigpt4_weights.empty(config)
    minigpt4_weights.fill(model, image_side)
    assert len(model.vision_model.encoder.layers) == 39
    assert model.query_tokens.shape == (1, 32, 768)
    vicuna = {n: s for n, s in minigpt4_layouts.vicuna(tokens).items() if not n.endswith("inv_freq")}
    assert {n: tuple(t.shape) for n, t in model.language_model.state_dict().items()} == vicuna
    assert upstream_layouts.parameters(vicuna) == parameters


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    transformers.LlamaConfig(vocab_size=8, hidden_size=64, num_hidden_layers=1).save_pretrained(tmp_path)
    model = minigpt4_weights.empty(tiny_config(transformers.LlamaConfig.from_pretrained(tmp_path)))
    eva = meta(minigpt4_layouts.eva_vit(VIT, blocks=3, hidden=48, image=28))
    qformer = meta(minigpt4_layouts.qformer(QFORMER, layers=2, hidden=40, vision=VIT, queries=5, t5=16))
    projection = meta(upstream_layouts.linear("llama_proj", 64, QFORMER))

    def fill(eva: dict[str, Any], qformer: dict[str, Any], projection: dict[str, Any]) -> None:
        state = minigpt4_weights.from_lavis(eva, qformer, 2) | minigpt4_weights.from_minigpt4(projection)
        minigpt4_weights.fill(model, state)

    fill(eva, qformer, projection)
    with pytest.raises(ValueError, match=r"image side: language_projection.bias, language_projection.weight missing"):
        fill(eva, qformer, {})
    without = {n: t for n, t in eva.items() if n != "blocks.1.attn.v_bias"}
    with pytest.raises(ValueError, match=r"vision_model.encoder.layers.1.self_attn.qkv.bias missing"):
        fill(without, qformer, projection)
    with pytest.raises(ValueError, match=r"language_projection.weight of another shape"):
        fill(eva, qformer, projection | {"llama_proj.weight": torch.empty(80, QFORMER, device="meta")})
    with pytest.raises(ValueError, match=r"visual_encoder.cls_token is not in the published layout"):
        fill(eva, qformer | {"visual_encoder.cls_token": torch.empty(1)}, projection)
    deeper = meta(minigpt4_layouts.qformer(QFORMER, layers=3, hidden=40, vision=VIT, queries=5, t5=16))
    with pytest.raises(ValueError, match=r"qformer.encoder.layer.2.* and 2\d more not of this model"):
        fill(eva, deeper, projection)


def lavis_files(state: dict[str, Any], files: Path) -> None:
    """Write transformers' image side as LAVIS and MiniGPT-4 name it."""
    eva, qformer = {}, {}
    vision = "vision_model"
    for name in minigpt4_layouts.eva_vit(VIT, blocks=2, hidden=48, image=28):
        block = f"{vision}.encoder.layers.{name.split('.')[1]}" if name.startswith("blocks") else ""
        end = name.rsplit(".", 1)[-1]
        if name.endswith("q_bias"):
            eva[name] = state[f"{block}.self_attn.qkv.bias"][:VIT]
        elif name.endswith("v_bias"):
            eva[name] = state[f"{block}.self_attn.qkv.bias"][2 * VIT :]
        elif ".attn." in name:
            layer = "qkv" if ".qkv." in name else "projection"
            eva[name] = state[f"{block}.self_attn.{layer}.{end}"]
        elif ".norm" in name:
            eva[name] = state[f"{block}.layer_norm{name.split('.norm')[1]}"]
        elif ".mlp." in name:
            eva[name] = state[f"{block}.mlp.{name.split('.mlp.')[1]}"]
        else:
            part = {"cls_token": "class_embedding", "pos_embed": "position_embedding"}.get(name)
            eva[name] = state[f"{vision}.embeddings.{part or 'patch_embedding.' + end}"]
    for name, shape in minigpt4_layouts.qformer(QFORMER, layers=2, hidden=40, vision=VIT, queries=5, t5=16).items():
        if name == "query_tokens":
            qformer[name] = state[name]
        elif name.startswith("ln_vision"):
            qformer[name] = state[name.replace("ln_vision", f"{vision}.post_layernorm")]
        elif "bert.encoder" in name:
            qformer[name] = state[name.replace("Qformer.bert", "qformer").replace(".self.", ".attention.")]
        elif "LayerNorm" in name:
            qformer[name] = state[name.replace("Qformer.bert.embeddings.LayerNorm", "qformer.layernorm")]
        else:
            qformer[name] = torch.zeros(shape)
    projection = {f"llama_proj.{end}": state[f"language_projection.{end}"] for end in ("weight", "bias")}
    torch.save(eva, files / "eva_vit_g.pth")
    torch.save({"model": qformer}, files / "blip2_pretrained_flant5xxl.pth")
    torch.save({"model": projection}, files / "prerained_minigpt4_7b.pth")


@pytest.fixture(scope="module")
def reference(untrained: Path) -> Any:
    """transformers' BLIP-2 itself, with random weights."""
    config = tiny_config(transformers.LlamaConfig.from_pretrained(untrained / "minigpt4" / "vicuna-7b"))
    model = transformers.Blip2ForConditionalGeneration(config).eval()
    image_side = {n: tuple(p.shape) for n, p in model.state_dict().items() if not n.startswith("language_model")}
    state = random_state(image_side, 7)
    for name, tensor in state.items():
        if name.endswith("qkv.bias"):
            tensor[VIT : 2 * VIT] = 0  # EVA's keys have none
    model.load_state_dict(state, strict=False)
    return model


def as_lavis_reads(images: list[np.ndarray]) -> Any:
    """LAVIS's `blip2_image_eval`, as it is written there, with torchvision."""
    from PIL import Image
    from torchvision import transforms

    process = transforms.Compose(
        [
            transforms.Resize((28, 28), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ]
    )
    return torch.stack([process(Image.fromarray(image)) for image in images])


@pytest.mark.parametrize("layout", ["lavis", "blip2"])
def test_up_to_the_projection_it_is_transformers_blip2(
    layout: str, untrained: Path, reference: Any, tiny: Callable[[Path], None], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    files = tmp_path / "minigpt4"
    files.mkdir()
    (files / "vicuna-7b").symlink_to(untrained / "minigpt4" / "vicuna-7b")
    lavis_files(reference.state_dict(), files)
    if layout == "lavis":
        tiny(tmp_path)
        engine = engine_of()
    else:
        reference.save_pretrained(tmp_path / "blip2", max_shard_size="60KB")
        assert len(list((tmp_path / "blip2").glob("*.safetensors"))) > 1
        for name in ("eva_vit_g.pth", "blip2_pretrained_flant5xxl.pth"):
            (files / name).unlink()
        monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
        engine = engine_of(blip2=str(tmp_path / "blip2"))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8) for _ in range(3)]
    with torch.inference_mode():
        expected = reference.get_image_features(as_lavis_reads(images)).pooler_output
        seen = engine._see(images)
        one = engine._see(images[1:2])
    assert expected.shape == (3, 5, LLAMA)
    assert (expected[0] - expected[1]).abs().max() > 0.01
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one, expected[1:2], atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        engine._model.vision_model.encoder.layers[0].mlp.fc1.weight[0, 0] += 1
        assert (engine._see(images) - expected).abs().max() > 1e-3


def eva_forward(eva: dict[str, Any], qformer: dict[str, Any], pixels: Any, heads: int, blocks: int) -> Any:
    """What LAVIS's eva_vit.py and `ln_vision` compute, from the tensors of its files as they are named there."""
    from torch.nn.functional import conv2d, gelu, layer_norm, linear

    def normed(x: Any, state: dict[str, Any], name: str, eps: float) -> Any:
        return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)

    x = conv2d(pixels, eva["patch_embed.proj.weight"], eva["patch_embed.proj.bias"], stride=14).flatten(2).mT
    x = torch.cat([eva["cls_token"].expand(len(x), -1, -1), x], 1) + eva["pos_embed"]
    for i in range(blocks):
        block = {name.removeprefix(f"blocks.{i}."): t for name, t in eva.items() if name.startswith(f"blocks.{i}.")}
        q_bias, v_bias = block["attn.q_bias"], block["attn.v_bias"]
        bias = torch.cat([q_bias, torch.zeros_like(v_bias), v_bias])
        qkv = linear(normed(x, block, "norm1", 1e-6), block["attn.qkv.weight"], bias)
        q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        weight = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
        x = x + linear((weight @ v).transpose(1, 2).flatten(2), block["attn.proj.weight"], block["attn.proj.bias"])
        hidden = gelu(linear(normed(x, block, "norm2", 1e-6), block["mlp.fc1.weight"], block["mlp.fc1.bias"]))
        x = x + linear(hidden, block["mlp.fc2.weight"], block["mlp.fc2.bias"])
    return normed(x, qformer, "ln_vision", 1e-5)


def test_the_vit_computes_what_lavis_computes(untrained: Path, tiny: Callable[[Path], None]) -> None:
    tiny(untrained)
    engine = engine_of()
    eva = torch.load(untrained / "minigpt4" / "eva_vit_g.pth", weights_only=True)
    qformer = torch.load(untrained / "minigpt4" / "blip2_pretrained_flant5xxl.pth", weights_only=True)["model"]
    rng = np.random.default_rng(1)
    pixels = as_lavis_reads([rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8) for _ in range(2)])
    with torch.inference_mode():
        expected = eva_forward(eva, qformer, pixels, heads=4, blocks=2)
        seen = engine._model.vision_model(pixels).last_hidden_state
    assert expected.std() > 0.1
    torch.testing.assert_close(seen, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_keeps_the_qformer_single(precision: str, untrained: Path, tiny: Callable[[Path], None]) -> None:
    tiny(untrained)
    images = [sample(BLUE).grid()[0], sample(RED).grid()[0]]
    single, half = engine_of(), engine_of(precision=precision)
    with torch.inference_mode():
        expected, seen = single._see(images), half._see(images)
    assert single._model.dtype == torch.float32
    assert seen.dtype == getattr(torch, precision)
    assert {p.dtype for p in half._model.qformer.parameters()} == {torch.float32}
    assert half._model.language_model.dtype == seen.dtype
    within = 0.02 if precision == "float16" else 0.1
    torch.testing.assert_close(seen.float(), expected, atol=within, rtol=within)


def test_a_vicuna_with_a_tensor_missing_is_refused(
    untrained: Path, tiny: Callable[[Path], None], tmp_path: Path
) -> None:
    files = tmp_path / "minigpt4"
    vicuna = files / "vicuna-7b"
    vicuna.mkdir(parents=True)
    for path in (untrained / "minigpt4").glob("*.pth"):
        (files / path.name).symlink_to(path)
    for path in (untrained / "minigpt4" / "vicuna-7b").iterdir():
        (vicuna / path.name).symlink_to(path)
    state = torch.load(vicuna / "pytorch_model.bin", weights_only=True)
    del state["model.layers.1.mlp.up_proj.weight"]
    (vicuna / "pytorch_model.bin").unlink()
    torch.save(state, vicuna / "pytorch_model.bin")
    tiny(tmp_path)
    with pytest.raises(ValueError, match=r"vicuna-7b is not a Llama .*: model.layers.1.mlp.up_proj.weight do not fit"):
        engine_of()
