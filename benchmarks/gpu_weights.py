"""Random weights for the paper profile, in the published layouts: of full size, or tiny with `small`.

Speed does not depend on what the weights are, with one exception: a language model of random weights never stops and
says nothing that can be used. So Vicuna's layers keep their full work but add nothing to what passes through them, and
its head is set by hand so that each token brings the next of `ANSWER`: that is of use as description and as action.
CRAFT, CRNN and the real detector have one size only.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages import weights
from stages.caption_text import ASK_ACTION, ASK_CAPTION
from stages.minigpt4 import AFTER_IMAGE, BEFORE_IMAGE, STOP
from tests import upstream_layouts

ANSWER = "A woman with long dark hair in front of some green trees is talking."
DETECTOR = (
    "scrfd_2.5g_kps"  # the one real file: a random detector finds no face, and a clip without one goes no further
)


def write_weights(folder: Path, small: bool) -> dict[str, Any]:
    """Writes all files but the detector's; returns the `stages` of sources.yaml that go with them."""
    layouts = {
        "clip-rn50": upstream_layouts.tiny_clip_resnet() if small else upstream_layouts.clip_resnet(),
        "clip-vit-l-14": upstream_layouts.tiny_clip_vit() if small else upstream_layouts.clip_vit(),
        "craft_mlt_25k": upstream_layouts.craft(),
        "english_g2": upstream_layouts.crnn(97),
    }
    raft = "raft_small" if small else "raft_large"
    layouts[raft] = upstream_layouts.raft_small() if small else upstream_layouts.raft_large()
    for name, layout in layouts.items():
        upstream_layouts.own(upstream_layouts.write(layout, folder / weights.WEIGHTS[name].file, seed=1), folder)
    recogniser = folder / weights.WEIGHTS["w600k_r50"].file
    write_iresnet(recogniser, *((16, (1, 1, 1, 1)) if small else (64, (3, 4, 14, 3))))
    upstream_layouts.own(recogniser, folder)
    write_minigpt4(folder, small)
    return {
        "face": {"detector": DETECTOR},
        "motion": {"model": raft},
        "caption": {"engine": "minigpt4", "blip2": str(folder / "blip2")},
    }


def write_iresnet(path: Path, width: int, blocks: tuple[int, int, int, int]) -> None:
    """ArcFace's improved ResNet as ONNX, batch normalisation folded where it follows a convolution, as in insightface's
    files; 64 and (3, 4, 14, 3) are w600k_r50's."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes: list[Any] = []
    values: list[Any] = []

    def layer(kind: str, inputs: list[str], *shapes: tuple[int, ...], **attributes: Any) -> str:
        name = f"{kind}{len(nodes)}"
        for i, shape in enumerate(shapes):
            scale = (2 / np.prod(shape[1:])) ** 0.5 if kind in ("Conv", "Gemm") and len(shape) > 1 else 0.1
            array = np.ones(shape) if kind == "BatchNormalization" else rng.normal(0, scale, shape)
            values.append(numpy_helper.from_array(array.astype(np.float32), f"{name}.{i}"))
            inputs = [*inputs, f"{name}.{i}"]
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def conv(x: str, inp: int, out: int, kernel: int = 3, stride: int = 1) -> str:
        pads = [kernel // 2] * 4
        return layer("Conv", [x], (out, inp, kernel, kernel), (out,), strides=[stride, stride], pads=pads)

    x = layer("PRelu", [conv("input.1", 3, width)], (width, 1, 1))
    inp = width
    for stage, count in enumerate(blocks):
        out = width * 2**stage
        for i in range(count):
            stride = 2 if i == 0 else 1
            y = conv(layer("BatchNormalization", [x], *[(inp,)] * 4), inp, out)
            y = conv(layer("PRelu", [y], (out, 1, 1)), out, out, stride=stride)
            x = layer("Add", [y, conv(x, inp, out, 1, 2) if i == 0 else x])
            inp = out
    x = layer("Flatten", [layer("BatchNormalization", [x], *[(inp,)] * 4)])
    layer("Gemm", [x], (inp * 7 * 7, 512), (512,))
    graph = helper.make_graph(
        nodes,
        "iresnet",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, ["None", 3, 112, 112])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["None", 512])],
        values,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def write_minigpt4(folder: Path, small: bool) -> None:
    """A BLIP-2 folder for the image side, MiniGPT-4's projection and a Vicuna folder, in half precision where full."""
    from transformers import (
        AutoTokenizer,
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2QFormerConfig,
        Blip2VisionConfig,
        LlamaConfig,
        LlamaForCausalLM,
    )

    files = folder / "minigpt4"
    vicuna = folder / weights.WEIGHTS["vicuna-7b"].file
    vicuna.mkdir(parents=True)
    train_tokenizer(vicuna)
    tiny_llama = LlamaConfig(
        vocab_size=480, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    # Without arguments the configurations are those of Vicuna-7B and of BLIP-2's image side.
    llama = tiny_llama if small else LlamaConfig()
    image_side: dict[str, Any] = {}
    if small:
        image_side = {
            "vision_config": Blip2VisionConfig(
                hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=28
            ),
            "qformer_config": Blip2QFormerConfig(
                hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, encoder_hidden_size=32
            ),
            "num_query_tokens": 5,
        }
    dtype = torch.float32 if small else torch.float16
    torch.manual_seed(0)
    blip2 = Blip2ForConditionalGeneration._from_config(Blip2Config(text_config=tiny_llama, **image_side), dtype=dtype)
    blip2.save_pretrained(folder / "blip2")
    width = blip2.config.qformer_config.hidden_size
    projection = torch.nn.Linear(width, llama.hidden_size).state_dict()
    model = {f"llama_proj.{name}": tensor for name, tensor in projection.items()}
    torch.save({"model": model}, files / "prerained_minigpt4_7b.pth")

    language_model = LlamaForCausalLM._from_config(llama, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(vicuna, local_files_only=True)
    prompt = tokenizer(AFTER_IMAGE.format(question=""), add_special_tokens=False).input_ids
    answer = tokenizer(ANSWER + STOP, add_special_tokens=False).input_ids
    say(language_model, [prompt[-1], *answer])
    language_model.save_pretrained(vicuna)


def train_tokenizer(folder: Path) -> None:
    """A sentencepiece BPE with byte fallback, as LLaMA's is, of 480 pieces."""
    import sentencepiece

    corpus = [BEFORE_IMAGE, AFTER_IMAGE, ASK_CAPTION, ASK_ACTION]
    corpus += [ANSWER + STOP] * 50  # so often that its words are pieces, no two alike
    (folder / "corpus.txt").write_text("\n".join(corpus * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"), model_prefix=str(folder / "tokenizer"), vocab_size=480, model_type="bpe",
        byte_fallback=True, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": True}))


def say(model: Any, tokens: list[int]) -> None:
    """Set a Llama so that each of these tokens brings the next, whatever came before; each may occur once."""
    if len(set(tokens)) < len(tokens):
        raise ValueError(f"a token occurs twice in {tokens}")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.lm_head.weight.zero_()
        for token, following in pairwise(tokens):
            model.lm_head.weight[following] = model.model.embed_tokens.weight[token]
