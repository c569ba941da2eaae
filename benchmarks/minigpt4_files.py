"""MiniGPT-4's files with random weights, of full size or tiny, and its tokenizer, trained on a few sentences.

A language model of random weights never stops and says nothing that can be used. So Vicuna's layers keep their full
work but add nothing to what passes through them, and its head is set by hand so that each token brings the next of
`ANSWER`: that is of use as description and as action.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from stages import weights
from stages.caption_text import ASK_ACTION, ASK_CAPTION
from stages.minigpt4 import AFTER_IMAGE, BEFORE_IMAGE, STOP

ANSWER = "A woman with long dark hair in front of some green trees is talking."
VOCABULARY = 480  # of the tokenizer, and of a tiny Vicuna


def tiny_llama() -> Any:
    """Vicuna's configuration in a size that runs in a test."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=512, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def tiny_config(llama: Any) -> Any:
    """BLIP-2's configuration with this language model and an image side that runs in a test."""
    from transformers import Blip2Config, Blip2QFormerConfig, Blip2VisionConfig

    vision = Blip2VisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=14
    )
    qformer = Blip2QFormerConfig(
        hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, encoder_hidden_size=32
    )
    return Blip2Config(vision_config=vision, qformer_config=qformer, text_config=llama, num_query_tokens=5)


def train_tokenizer(folder: Path, sentences: Sequence[str]) -> None:
    """A sentencepiece BPE with byte fallback, as LLaMA's is, that knows the prompts and these sentences."""
    import sentencepiece

    corpus = [BEFORE_IMAGE, AFTER_IMAGE, ASK_CAPTION, ASK_ACTION, *sentences]
    (folder / "corpus.txt").write_text("\n".join(corpus * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"), model_prefix=str(folder / "tokenizer"), vocab_size=VOCABULARY,
        model_type="bpe", byte_fallback=True, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": True}))


def write_minigpt4(folder: Path, small: bool) -> None:
    """A BLIP-2 folder for the image side, MiniGPT-4's projection and a Vicuna folder; of full size in half precision,
    one after the other, so that no more than Vicuna's 13.5 GB are held."""
    from transformers import Blip2Config, LlamaConfig

    # Without arguments the configurations are those of Vicuna-7B and of BLIP-2's image side.
    llama = tiny_llama() if small else LlamaConfig()
    blip2 = tiny_config(tiny_llama()) if small else Blip2Config(text_config=tiny_llama())
    dtype = torch.float32 if small else torch.float16
    write_blip2(folder / "blip2", blip2, dtype)
    write_vicuna(folder / weights.WEIGHTS["vicuna-7b"].file, llama, dtype)
    projection = torch.nn.Linear(blip2.qformer_config.hidden_size, llama.hidden_size).state_dict()
    model = {f"llama_proj.{name}": tensor for name, tensor in projection.items()}
    torch.save({"model": model}, folder / weights.WEIGHTS["minigpt4-7b"].file)


def write_blip2(folder: Path, config: Any, dtype: torch.dtype) -> None:
    from transformers import Blip2ForConditionalGeneration

    randomised(Blip2ForConditionalGeneration, config, dtype).save_pretrained(folder)


def write_vicuna(folder: Path, config: Any, dtype: torch.dtype) -> None:
    from transformers import AutoTokenizer, LlamaForCausalLM

    folder.mkdir(parents=True)
    train_tokenizer(folder, [ANSWER + STOP] * 50)  # so often that its words are pieces, no two alike
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    prompt = tokenizer(AFTER_IMAGE.format(question=""), add_special_tokens=False).input_ids
    answer = tokenizer(ANSWER + STOP, add_special_tokens=False).input_ids
    model = randomised(LlamaForCausalLM, config, dtype)
    say(model, [prompt[-1], *answer])
    model.save_pretrained(folder, max_shard_size="2GB")  # what is not written out yet takes memory too


def randomised(kind: Any, config: Any, dtype: torch.dtype) -> Any:
    """A transformers model, made without storage first, then filled from one stretch of noise, over and over: billions
    of random numbers would take minutes. Its length is prime, so that no two rows of a matrix are alike."""
    with torch.device("meta"):
        model = kind._from_config(config, dtype=dtype)
    model.to_empty(device="cpu")
    noise = 0.02 * torch.randn(1_000_003, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.fill_(1)
            elif parameter.ndim < 2:
                parameter.zero_()
            else:
                for piece in parameter.flatten().split(len(noise)):
                    piece.copy_(noise[: len(piece)])
    return model


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
