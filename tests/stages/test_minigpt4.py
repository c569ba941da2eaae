"""MiniGPT-4: published layouts, parity with transformers' BLIP-2, and captions end to end in a tiny size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MiniGPT-4 needs torch")
transformers = pytest.importorskip("transformers", reason="MiniGPT-4 needs transformers")
pytest.importorskip("sentencepiece", reason="Vicuna's tokenizer needs sentencepiece")

from pydantic import ValidationError  # noqa: E402

from stages import minigpt4, minigpt4_weights, weights  # noqa: E402
from stages.base import ClipError, Measured, Sample  # noqa: E402
from stages.caption_text import ASK_ACTION, ASK_CAPTION, scene  # noqa: E402
from stages.clip import Clip  # noqa: E402
from stages.frames import Frames, FrameSpec  # noqa: E402
from stages.minigpt4 import AFTER_IMAGE, BEFORE_IMAGE, MiniGPT4, MiniGPT4Params  # noqa: E402
from tests import minigpt4_layouts, upstream_layouts  # noqa: E402

SIZE = 64
VIT, QFORMER, LLAMA, HEADS = 32, 24, 64, 4
BLUE, RED = (30, 60, 200), (220, 40, 30)
SAYS = {
    BLUE: ("A man is talking in a blue room.", "He is talking."),
    RED: ("A woman smiles at the camera.", "smiling at the camera"),
}


def tiny_config(llama: Any) -> Any:
    vision = transformers.Blip2VisionConfig(
        hidden_size=VIT, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=14
    )
    qformer = transformers.Blip2QFormerConfig(
        hidden_size=QFORMER, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, encoder_hidden_size=VIT
    )
    return transformers.Blip2Config(vision_config=vision, qformer_config=qformer, text_config=llama, num_query_tokens=5)


def random_state(layout: dict[str, tuple[int, ...]], seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in layout.items():
        noise = torch.randn(shape, generator=generator)
        state[name] = 1 + 0.1 * noise if "norm" in name.lower() and name.endswith("weight") else 0.15 * noise
    return state


def train_tokenizer(folder: Path) -> None:
    """A sentencepiece BPE with byte fallback, as LLaMA's is."""
    import sentencepiece

    corpus = [BEFORE_IMAGE, AFTER_IMAGE, ASK_CAPTION, ASK_ACTION, "This is a frame of a video of a person.", "a ### b"]
    corpus += [text + "###" for texts in SAYS.values() for text in texts]
    (folder / "corpus.txt").write_text("\n".join(corpus * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"), model_prefix=str(folder / "tokenizer"), vocab_size=480, model_type="bpe",
        byte_fallback=True, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": True}))


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder in the published layouts, tiny, with random numbers."""
    folder = tmp_path_factory.mktemp("weights")
    files = folder / "minigpt4"
    vicuna = files / "vicuna-7b"
    vicuna.mkdir(parents=True)
    eva = minigpt4_layouts.eva_vit(VIT, blocks=3, hidden=48, image=28) | upstream_layouts.norm("norm", VIT)
    torch.save(random_state(eva, 1), files / "eva_vit_g.pth")
    qformer = minigpt4_layouts.qformer(QFORMER, layers=2, hidden=40, vision=VIT, queries=5, t5=16)
    torch.save({"model": random_state(qformer, 2), "epoch": 3}, files / "blip2_pretrained_flant5xxl.pth")
    projection = minigpt4_layouts.minigpt4(QFORMER, LLAMA, layers=2, head=LLAMA // HEADS)
    torch.save({"model": random_state(projection, 3)}, files / "prerained_minigpt4_7b.pth")
    train_tokenizer(vicuna)
    llama = transformers.LlamaConfig(
        vocab_size=480, hidden_size=LLAMA, intermediate_size=96, num_hidden_layers=2, num_attention_heads=HEADS,
        max_position_embeddings=512, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    llama.save_pretrained(vicuna)
    state = random_state(minigpt4_layouts.vicuna(480, LLAMA, layers=2, hidden=96), 4)
    torch.save(state, vicuna / "pytorch_model.bin")
    return folder


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make `setup` use a weights folder, with the tiny image side in place of BLIP-2's."""

    def use(folder: Path) -> None:
        monkeypatch.setenv(weights.VARIABLE, str(folder))
        llama = transformers.LlamaConfig.from_pretrained(folder / "minigpt4" / "vicuna-7b")
        monkeypatch.setattr(minigpt4, "config_of", lambda vicuna, blip2: tiny_config(llama))

    return use


def engine_of(**params: Any) -> MiniGPT4:
    engine = MiniGPT4(MiniGPT4Params(**{"max_new_tokens": 24, **params}), FrameSpec(size=SIZE))
    engine.setup("cpu")
    return engine


def sample(colour: tuple[int, int, int], frames: int = 16) -> Sample:
    images = np.broadcast_to(np.array(colour, np.uint8), (frames, SIZE, SIZE, 3)).copy()
    decoded = Frames(images, np.arange(frames) / 4.0, (SIZE, SIZE), "pyav")
    return Sample(Clip("talks", f"{colour}.mp4", "video", "1-1"), {"crop": [0.0, 0.0, SIZE, SIZE]}, decoded)


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


# --- parity with transformers' own BLIP-2 -----------------------------------------------------------------------------


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


# --- prompt and answers -----------------------------------------------------------------------------------------------


def test_the_prompt_is_tokenised_by_parts_with_one_beginning(untrained: Path, tiny: Callable[[Path], None]) -> None:
    tiny(untrained)
    engine = engine_of()
    before, after = engine.prompt("What is this?")
    assert (before + after).count(1) == 1
    assert before[0] == 1
    decode = engine._tokenizer.decode
    assert decode(before[1:]) == BEFORE_IMAGE
    assert decode(after) == "</Img> What is this?###Assistant:"
    tokens = engine._tokenizer.convert_ids_to_tokens(after)
    assert tokens[0].startswith("▁<")  # a new part begins like a new text, as in MiniGPT-4's own tokenisation


def test_random_weights_give_no_caption_but_an_error(untrained: Path, tiny: Callable[[Path], None]) -> None:
    tiny(untrained)
    results = engine_of(retries=1).measure([sample(BLUE), sample(RED)])
    for result in results:
        assert isinstance(result, ClipError)
        assert not result.transient
        assert str(result).startswith("no usable description in 2 answers: the last ")


@pytest.fixture(scope="module")
def trained(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder with a Vicuna that was taught, in a minute of a toy's life, what to say of blue and of red."""
    folder = tmp_path_factory.mktemp("trained")
    files, old = folder / "minigpt4", untrained / "minigpt4"
    files.mkdir()
    for name in ("eva_vit_g.pth", "blip2_pretrained_flant5xxl.pth", "prerained_minigpt4_7b.pth"):
        (files / name).symlink_to(old / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(weights.VARIABLE, str(untrained))
        llama = transformers.LlamaConfig.from_pretrained(old / "vicuna-7b")
        patch.setattr(minigpt4, "config_of", lambda vicuna, blip2: tiny_config(llama))
        engine = engine_of()
    teach(engine)
    engine._model.language_model.save_pretrained(files / "vicuna-7b")
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (files / "vicuna-7b" / name).symlink_to(old / "vicuna-7b" / name)
    return folder


def teach(engine: MiniGPT4) -> None:
    """Fit the language model to the answers of `SAYS`, by the engine's own images and prompts."""
    model, tokenizer = engine._model.language_model, engine._tokenizer
    model.init_weights()
    model.requires_grad_(requires_grad=True)
    embed = model.get_input_embeddings()
    grid = sample(BLUE).grid()
    told = scene(grid, engine._params)
    lessons = []
    for colour, (caption, action) in SAYS.items():
        seen = engine._see([sample(colour).grid()[8]])[0].detach()
        for question, answer in (
            (f"{told} {ASK_CAPTION}", caption),
            (f"{told} {ASK_ACTION.format(caption=caption)}", action),
        ):
            lessons.append(
                (seen, *engine.prompt(question), tokenizer(f"{answer}###", add_special_tokens=False).input_ids)
            )
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    torch.manual_seed(0)
    for _ in range(300):
        loss = torch.zeros(())
        for seen, before, after, answer in lessons:
            inputs = torch.cat([embed(torch.tensor(before)), seen, embed(torch.tensor(after + answer))])
            logits = model(inputs_embeds=inputs[None, :-1]).logits[0, -len(answer) :]
            loss = loss + torch.nn.functional.cross_entropy(logits, torch.tensor(answer))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if loss < 0.08:  # over four lessons: every token is by far the likeliest
            break
    model.eval()


def test_captions_end_to_end(trained: Path, tiny: Callable[[Path], None]) -> None:
    tiny(trained)
    engine = engine_of()
    generate = engine._model.language_model.generate
    lengths: list[int] = []

    def counting(**kwargs: Any) -> Any:
        tokens = generate(**kwargs)
        lengths.append(tokens.shape[1])
        return tokens

    engine._model.language_model.generate = counting
    colours = [RED, BLUE, BLUE, RED]
    results = engine.measure([sample(colour) for colour in colours])
    expected = {
        BLUE: {"caption": "A man is talking in a blue room.", "action": "talking"},
        RED: {"caption": "A woman smiles at the camera.", "action": "smiling at the camera"},
    }
    assert [r.columns if isinstance(r, Measured) else str(r) for r in results] == [expected[c] for c in colours]
    tokens = {c: engine._tokenizer([f"{a}###" for a in SAYS[c]], add_special_tokens=False).input_ids for c in SAYS}
    assert lengths == [
        max(len(tokens[c][i]) for c in SAYS) for i in (0, 1)
    ]  # two rounds, each over when the longest answer has ended with its "###"
    (alone,) = engine.measure([sample(RED)])
    assert isinstance(alone, Measured)
    assert alone.columns == expected[RED]
    again = engine.measure([sample(colour) for colour in colours])
    assert [r.columns for r in again if isinstance(r, Measured)] == [expected[c] for c in colours]


def test_an_answer_ends_at_its_stop_however_that_is_tokenised(untrained: Path, tiny: Callable[[Path], None]) -> None:
    tiny(untrained)
    engine = engine_of()
    tokenizer = engine._tokenizer
    stop = transformers.StopStringCriteria(tokenizer, [minigpt4.STOP])
    talking = tokenizer("talking", add_special_tokens=False).input_ids
    for pieces in (["▁###"], ["##", "#"], ["▁", "##", "#"]):
        ids = tokenizer.convert_tokens_to_ids(pieces)
        assert tokenizer.unk_token_id not in ids
        assert stop(torch.tensor([[*talking, *ids]]), None).tolist() == [True]
        assert stop(torch.tensor([[*talking, *ids[:-1]]]), None).tolist() == [False]


def test_half_precision_keeps_the_qformer_single(untrained: Path, tiny: Callable[[Path], None]) -> None:
    tiny(untrained)
    engine = engine_of()
    files = weights.require(engine.weights())
    config = tiny_config(transformers.LlamaConfig.from_pretrained(files["vicuna-7b"]))
    read = minigpt4_weights.read
    image_side = minigpt4_weights.from_lavis(read(files["eva-vit-g"]), read(files["blip2-qformer"]), 2)
    image_side |= minigpt4_weights.from_minigpt4(read(files["minigpt4-7b"]))
    images = [sample(BLUE).grid()[0], sample(RED).grid()[0]]
    with torch.inference_mode():
        expected = engine._see(images)
        engine._model = minigpt4_weights.load(config, image_side, files["vicuna-7b"], torch.float16)
        seen = engine._see(images)
    assert seen.dtype == torch.float16
    assert {p.dtype for p in engine._model.qformer.parameters()} == {torch.float32}
    assert engine._model.language_model.dtype == torch.float16
    torch.testing.assert_close(seen.float(), expected, atol=0.02, rtol=0.02)


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


def test_the_version_names_the_weights(untrained: Path, tiny: Callable[[Path], None]) -> None:
    tiny(untrained)
    engine = MiniGPT4(MiniGPT4Params(), FrameSpec())
    expected = weights.digest(untrained / "minigpt4" / "eva_vit_g.pth")[:16]
    assert f"eva-vit-g={expected}" in engine.version()
    assert "vicuna-7b=" in engine.version()
    assert engine.version().startswith("prompts 1, transformers ")


def test_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"(?s)eva-vit-g: .*blip2-qformer: .*minigpt4-7b: .*vicuna-7b: "):
        engine_of()
    with pytest.raises(ValueError, match=r"expected model.safetensors, or model.safetensors.index.json and its parts"):
        MiniGPT4(MiniGPT4Params(blip2=str(tmp_path)), FrameSpec()).version()


def test_one_picture_only() -> None:
    with pytest.raises(ValidationError, match="expected middle or sheet: MiniGPT-4 reads one picture"):
        MiniGPT4Params(view="frames")
