"""Names and shapes of the files that MiniGPT-4 is published in, written down from the upstream projects' sources.

EVA ViT-g: salesforce/LAVIS, lavis/models/eva_vit.py (`create_eva_vit_g`); the file has EVA's 40 blocks, of which LAVIS
builds 39, and loads what fits. Q-Former: lavis/models/blip2_models/Qformer.py and blip2_t5.py, where the word and
position embeddings and the text half of each layer are taken away; the trainer (runners/runner_base.py) saves trained
parameters and all buffers, hence `position_ids`, T5's projection, `ln_vision` and no ViT. MiniGPT-4: Vision-CAIR's
minigpt4/models/minigpt4.py, saved alike, hence Llama's rotary tables. Vicuna: lmsys's Hugging Face folders, LLaMA 7B;
v0 has one more token, the padding, than v1.

None of it is read off a model of this project or of an installed library.
"""

from __future__ import annotations

from benchmarks.upstream_layouts import Layout, linear, norm


def eva_vit(width: int = 1408, blocks: int = 40, hidden: int = 6144, patch: int = 14, image: int = 224) -> Layout:
    positions = (image // patch) ** 2 + 1
    layout: Layout = {"cls_token": (1, 1, width), "pos_embed": (1, positions, width)}
    layout |= {"patch_embed.proj.weight": (width, 3, patch, patch), "patch_embed.proj.bias": (width,)}
    for i in range(blocks):
        block = f"blocks.{i}"
        layout |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
        layout |= {f"{block}.attn.qkv.weight": (3 * width, width)}
        layout |= {f"{block}.attn.q_bias": (width,), f"{block}.attn.v_bias": (width,)}
        layout |= linear(f"{block}.attn.proj", width, width)
        layout |= linear(f"{block}.mlp.fc1", hidden, width) | linear(f"{block}.mlp.fc2", width, hidden)
    return layout


def qformer(
    width: int = 768, layers: int = 12, hidden: int = 3072, vision: int = 1408, queries: int = 32, t5: int = 4096
) -> Layout:
    layout: Layout = {"query_tokens": (1, queries, width)} | norm("ln_vision", vision) | linear("t5_proj", t5, width)
    layout |= norm("Qformer.bert.embeddings.LayerNorm", width) | {"Qformer.bert.embeddings.position_ids": (1, 512)}
    for i in range(layers):
        layer = f"Qformer.bert.encoder.layer.{i}"
        attentions = [("attention", width)] + ([("crossattention", vision)] if i % 2 == 0 else [])
        for attention, keys in attentions:
            layout |= linear(f"{layer}.{attention}.self.query", width, width)
            layout |= linear(f"{layer}.{attention}.self.key", width, keys)
            layout |= linear(f"{layer}.{attention}.self.value", width, keys)
            layout |= linear(f"{layer}.{attention}.output.dense", width, width)
            layout |= norm(f"{layer}.{attention}.output.LayerNorm", width)
        layout |= linear(f"{layer}.intermediate_query.dense", hidden, width)
        layout |= linear(f"{layer}.output_query.dense", width, hidden) | norm(f"{layer}.output_query.LayerNorm", width)
    return layout


def minigpt4(width: int = 768, llama: int = 4096, layers: int = 32, head: int = 128) -> Layout:
    layout = linear("llama_proj", llama, width) | {"Qformer.bert.embeddings.position_ids": (1, 512)}
    rotary: Layout = {
        f"llama_model.model.layers.{i}.self_attn.rotary_emb.inv_freq": (head // 2,) for i in range(layers)
    }
    return layout | rotary


def vicuna(tokens: int, width: int = 4096, layers: int = 32, hidden: int = 11008) -> Layout:
    layout: Layout = {"model.embed_tokens.weight": (tokens, width), "lm_head.weight": (tokens, width)}
    layout |= {"model.norm.weight": (width,)}
    for i in range(layers):
        layer = f"model.layers.{i}"
        layout |= {f"{layer}.self_attn.{p}_proj.weight": (width, width) for p in "qkvo"}
        layout |= {f"{layer}.mlp.{p}_proj.weight": (hidden, width) for p in ("gate", "up")}
        layout |= {f"{layer}.mlp.down_proj.weight": (width, hidden)}
        layout |= {f"{layer}.{p}_layernorm.weight": (width,) for p in ("input", "post_attention")}
        layout |= {f"{layer}.self_attn.rotary_emb.inv_freq": (64,)}
    return layout
