"""MiniGPT-4's weights: the published layouts, read into transformers' Blip2ForConditionalGeneration, strictly.

Names and shapes follow salesforce/LAVIS (models/eva_vit.py, models/blip2_models/Qformer.py and blip2.py), Vision-CAIR's
MiniGPT-4 (models/minigpt4.py) and, for what belongs to what, transformers' own conversion of BLIP-2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages import weights

if TYPE_CHECKING:
    import torch

# transformers' own annotations leave its models and configurations uncheckable.
Model = Any
Blip2Config = Any
Tensors = dict[str, "torch.Tensor"]


def config_of(vicuna: Path, blip2: Path | None) -> Blip2Config:
    """The architecture. The image side is that of the BLIP-2 folder or, without one, BLIP-2's, which are transformers'
    defaults; the language model is the Vicuna folder's."""
    from transformers import Blip2Config as Config
    from transformers import LlamaConfig

    llama = LlamaConfig.from_pretrained(vicuna, local_files_only=True)
    if blip2 is None:
        return Config(text_config=llama)
    published = Config.from_pretrained(blip2, local_files_only=True)
    return Config(
        vision_config=published.vision_config,
        qformer_config=published.qformer_config,
        num_query_tokens=published.num_query_tokens,
        text_config=llama,
    )


def load(config: Blip2Config, image_side: Tensors, vicuna: Path, dtype: torch.dtype) -> Model:
    """The model in eval mode. `image_side` holds every tensor outside of the language model, under transformers' names.

    Raises ValueError that names tensors which are missing, superfluous or of another shape.
    """
    import torch
    from transformers import LlamaForCausalLM

    model = empty(config)
    # As in transformers, the Q-Former and its queries stay in single precision.
    single = ("qformer.", "query_tokens")
    fill(model, {n: t.to(torch.float32 if n.startswith(single) else dtype) for n, t in image_side.items()})
    loaded: Any = LlamaForCausalLM.from_pretrained(vicuna, dtype=dtype, local_files_only=True, output_loading_info=True)
    language_model, info = loaded
    wrong = [*info["missing_keys"], *info["mismatched_keys"]]
    wrong += [name for name in info["unexpected_keys"] if not name.endswith("rotary_emb.inv_freq")]
    if wrong:
        raise ValueError(f"{vicuna} is not a Llama as its config.json says: {_some(wrong)} do not fit")
    model.language_model = language_model
    return model.eval().requires_grad_(requires_grad=False)


def empty(config: Blip2Config) -> Model:
    """The model without storage (on the meta device)."""
    import torch
    from transformers import Blip2ForConditionalGeneration

    with torch.device("meta"):
        return Blip2ForConditionalGeneration(config)


def fill(model: Model, image_side: Tensors) -> None:
    """Put tensors, under transformers' names, in place of all that the model has outside of its language model.
    Raises ValueError that names those that are missing, superfluous or of another shape."""
    shapes = {
        name: tensor.shape for name, tensor in model.state_dict().items() if not name.startswith("language_model.")
    }
    for problem, names in {
        "missing": shapes.keys() - image_side.keys(),
        "not of this model": image_side.keys() - shapes.keys(),
        "of another shape": {n for n, t in image_side.items() if n in shapes and t.shape != shapes[n]},
    }.items():
        if names:
            raise ValueError(f"MiniGPT-4's image side: {_some(sorted(names))} {problem}")
    model.load_state_dict(image_side, strict=False, assign=True)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# --- published layouts ------------------------------------------------------------------------------------------------

_EVA = (
    (r"cls_token", r"embeddings.class_embedding"),
    (r"pos_embed", r"embeddings.position_embedding"),
    (r"patch_embed\.proj\.(weight|bias)", r"embeddings.patch_embedding.\1"),
    (r"blocks\.(\d+)\.norm([12])\.(weight|bias)", r"encoder.layers.\1.layer_norm\2.\3"),
    (r"blocks\.(\d+)\.attn\.qkv\.weight", r"encoder.layers.\1.self_attn.qkv.weight"),
    (r"blocks\.(\d+)\.attn\.proj\.(weight|bias)", r"encoder.layers.\1.self_attn.projection.\2"),
    (r"blocks\.(\d+)\.mlp\.(fc[12])\.(weight|bias)", r"encoder.layers.\1.mlp.\2.\3"),
)
_QFORMER = (
    (r"query_tokens", r"query_tokens"),
    (r"ln_vision\.(weight|bias)", r"vision_model.post_layernorm.\1"),
    (r"Qformer\.bert\.embeddings\.LayerNorm\.(weight|bias)", r"qformer.layernorm.\1"),
    (
        r"Qformer\.bert\.encoder\.layer\.(\d+)\.(attention|crossattention)\.self\.(query|key|value)\.(weight|bias)",
        r"qformer.encoder.layer.\1.\2.attention.\3.\4",
    ),
    (r"Qformer\.bert\.(encoder\.layer\.\d+\.(?:attention|crossattention)\.output\..+)", r"qformer.\1"),
    (r"Qformer\.bert\.(encoder\.layer\.\d+\.(?:intermediate|output)_query\..+)", r"qformer.\1"),
)
# What the files hold beside: the ViT's own head, tables that are no weights, BLIP-2's projection into T5. LAVIS's and
# MiniGPT-4's trainers save all buffers, though only trained parameters.
_EVA_REST = r"(?:norm|fc_norm|head)\..+"
_REST = r".*\bposition_ids|t5_proj\..+|.*\brotary_emb\.inv_freq"


def from_lavis(eva: Tensors, qformer: Tensors, vit_layers: int) -> Tensors:
    """LAVIS's eva_vit_g.pth and blip2_pretrained_flant5xxl.pth under transformers' names, `language_projection` aside.

    Of the ViT, the first `vit_layers` are taken: EVA ViT-g has 40, and BLIP-2 sees what goes into the last.
    Raises ValueError for names that the layouts do not have."""
    import torch

    biases: dict[str, dict[str, torch.Tensor]] = {}
    kept: Tensors = {}
    for name, tensor in eva.items():
        block = re.match(r"blocks\.(\d+)\.", name)
        if block and int(block[1]) >= vit_layers:
            continue
        if bias := re.fullmatch(r"blocks\.(\d+)\.attn\.([qv])_bias", name):
            biases.setdefault(bias[1], {})[bias[2]] = tensor
        else:
            kept[name] = tensor
    state = {f"vision_model.{name}": tensor for name, tensor in _renamed(kept, _EVA, _EVA_REST).items()}
    for layer, bias_of in biases.items():
        if bias_of.keys() == {"q", "v"}:  # a missing one is found by `fill`
            query, value = bias_of["q"], bias_of["v"]
            joined = torch.cat([query, torch.zeros_like(query), value])  # EVA's keys have no bias
            state[f"vision_model.encoder.layers.{layer}.self_attn.qkv.bias"] = joined
    return state | _renamed(qformer, _QFORMER, _REST)


def from_minigpt4(checkpoint: Tensors) -> Tensors:
    """MiniGPT-4's checkpoint under transformers' names: `language_projection` alone."""
    return _renamed(checkpoint, ((r"llama_proj\.(weight|bias)", r"language_projection.\1"),), _REST)


def _renamed(state: Tensors, rules: Sequence[tuple[str, str]], rest: str) -> Tensors:
    """The tensors by their new names; those that match `rest` are left out. Raises ValueError for any other name."""
    renamed: Tensors = {}
    for name, tensor in state.items():
        new = next((re.sub(old, new, name) for old, new in rules if re.fullmatch(old, name)), None)
        if new is not None:
            renamed[new] = tensor
        elif not re.fullmatch(rest, name):
            raise ValueError(f"{name} is not in the published layout")
    return renamed


def blip2_files(folder: Path) -> list[Path]:
    """The safetensors files of a Hugging Face BLIP-2 folder that hold some of its image side; reads no tensor.
    Raises ValueError where there are none."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        where: dict[str, str] = json.loads(index.read_text())["weight_map"]
        return sorted({folder / file for name, file in where.items() if _is_image_side(name)})
    if single.is_file():
        return [single]
    raise ValueError(f"{folder}: expected model.safetensors, or model.safetensors.index.json and its parts")


def read_blip2(folder: Path) -> Tensors:
    """The image side of a Hugging Face BLIP-2 folder, `language_projection` aside: that one is for its own T5."""
    from safetensors import safe_open

    state: Tensors = {}
    for path in blip2_files(folder):
        with safe_open(path, "pt") as file:
            state |= {name: file.get_tensor(name) for name in file.keys() if _is_image_side(name)}  # noqa: SIM118
    return state


def _is_image_side(name: str) -> bool:
    return name.startswith(("vision_model.", "qformer.", "query_tokens")) and not name.endswith("position_ids")


def read(path: Path) -> Tensors:
    """The tensors of a .pth file; trainers' checkpoints keep them under "model"."""
    state: dict[str, Any] = weights.load_state_dict(path)
    return state["model"] if isinstance(state.get("model"), dict) else state
