"""Names and shapes of the published model files, written down from the upstream projects' sources.

CLIP RN50: openai/CLIP, clip/model.py, RN50's sizes from its model card; the archive's state dict also holds three
numbers that `build_model` there takes off. RAFT: pytorch/vision, torchvision/models/optical_flow/raft.py. CRAFT:
clovaai/CRAFT-pytorch, craft.py and basenet/vgg16_bn.py, saved from DataParallel. CRNN: JaidedAI/EasyOCR,
easyocr/model/vgg_model.py and modules.py, with the class counts of easyocr/config.py, saved from DataParallel.

None of it is read off a model of this project or of an installed library, so that a model which drifted from the
published files is noticed. The parameter counts that the publishers state check the lists themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

Layout = dict[str, tuple[int, ...]]


def conv(name: str, out: int, inp: int, *kernel: int, bias: bool = True) -> Layout:
    kernel = kernel if len(kernel) == 2 else (kernel[0], kernel[0])
    return {f"{name}.weight": (out, inp, *kernel)} | ({f"{name}.bias": (out,)} if bias else {})


def linear(name: str, out: int, inp: int) -> Layout:
    return {f"{name}.weight": (out, inp), f"{name}.bias": (out,)}


def norm(name: str, width: int) -> Layout:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def batch_norm(name: str, width: int) -> Layout:
    running: Layout = {f"{name}.running_mean": (width,), f"{name}.running_var": (width,)}
    return norm(name, width) | running | {f"{name}.num_batches_tracked": ()}


def clip_transformer(prefix: str, width: int, layers: int) -> Layout:
    layout: Layout = {}
    for i in range(layers):
        block = f"{prefix}transformer.resblocks.{i}"
        layout |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
        layout |= linear(f"{block}.attn.out_proj", width, width) | norm(f"{block}.ln_1", width)
        layout |= linear(f"{block}.mlp.c_fc", 4 * width, width) | linear(f"{block}.mlp.c_proj", width, 4 * width)
        layout |= norm(f"{block}.ln_2", width)
    return layout


def _clip_text(width: int, layers: int, embed: int, vocabulary: int) -> Layout:
    layout: Layout = {"positional_embedding": (77, width), "text_projection": (width, embed), "logit_scale": ()}
    layout |= {"input_resolution": (), "context_length": (), "vocab_size": ()}
    layout |= {"token_embedding.weight": (vocabulary, width)} | norm("ln_final", width)
    return layout | clip_transformer("", width, layers)


def clip_resnet(
    width: int = 64,
    layers: tuple[int, ...] = (3, 4, 6, 3),
    embed: int = 1024,
    text: int = 512,
    text_layers: int = 12,
    vocabulary: int = 49408,
) -> Layout:
    """The defaults are RN50's; input resolution 224."""
    layout = _clip_text(text, text_layers, embed, vocabulary)
    stem = ((3, width // 2), (width // 2, width // 2), (width // 2, width))
    for i, (inp, out) in enumerate(stem, 1):
        layout |= conv(f"visual.conv{i}", out, inp, 3, bias=False) | batch_norm(f"visual.bn{i}", out)
    inp = width
    for stage, blocks in enumerate(layers):
        planes = width * 2**stage
        for i in range(blocks):
            block = f"visual.layer{stage + 1}.{i}"
            layout |= conv(f"{block}.conv1", planes, inp, 1, bias=False) | batch_norm(f"{block}.bn1", planes)
            layout |= conv(f"{block}.conv2", planes, planes, 3, bias=False) | batch_norm(f"{block}.bn2", planes)
            layout |= conv(f"{block}.conv3", planes * 4, planes, 1, bias=False)
            layout |= batch_norm(f"{block}.bn3", planes * 4)
            if i == 0:
                layout |= conv(f"{block}.downsample.0", planes * 4, inp, 1, bias=False)
                layout |= batch_norm(f"{block}.downsample.1", planes * 4)
            inp = planes * 4
    layout["visual.attnpool.positional_embedding"] = (7 * 7 + 1, inp)
    for name in ("k_proj", "q_proj", "v_proj"):
        layout |= linear(f"visual.attnpool.{name}", inp, inp)
    return layout | linear("visual.attnpool.c_proj", embed, inp)


def clip_vit(
    width: int = 1024,
    layers: int = 24,
    patch: int = 14,
    embed: int = 768,
    text: int = 768,
    text_layers: int = 12,
    vocabulary: int = 49408,
) -> Layout:
    """The defaults are ViT-L/14's; input resolution 224."""
    layout = _clip_text(text, text_layers, embed, vocabulary)
    layout |= {"visual.class_embedding": (width,), "visual.positional_embedding": ((224 // patch) ** 2 + 1, width)}
    layout |= {"visual.proj": (width, embed)} | conv("visual.conv1", width, 3, patch, bias=False)
    layout |= norm("visual.ln_pre", width) | norm("visual.ln_post", width)
    return layout | clip_transformer("visual.", width, layers)


def _raft_encoder(name: str, widths: tuple[int, ...], bottleneck: bool, batch: bool) -> Layout:
    layout: Layout = {}

    def unit(part: str, out: int, inp: int, kernel: int) -> None:
        nonlocal layout
        layout |= conv(f"{name}.{part}.0", out, inp, kernel) | (batch_norm(f"{name}.{part}.1", out) if batch else {})

    unit("convnormrelu", widths[0], 3, 7)
    for layer in (1, 2, 3):
        for i in range(2):
            inp, out = (widths[layer - 1] if i == 0 else widths[layer]), widths[layer]
            block = f"layer{layer}.{i}"
            if bottleneck:
                unit(f"{block}.convnormrelu1", out // 4, inp, 1)
                unit(f"{block}.convnormrelu2", out // 4, out // 4, 3)
                unit(f"{block}.convnormrelu3", out, out // 4, 1)
            else:
                unit(f"{block}.convnormrelu1", out, inp, 3)
                unit(f"{block}.convnormrelu2", out, out, 3)
            if i == 0 and layer > 1:
                unit(f"{block}.downsample", out, inp, 1)
    return layout | conv(f"{name}.conv", widths[4], widths[3], 1)


def raft_large() -> Layout:
    layout = _raft_encoder("feature_encoder", (64, 64, 96, 128, 256), bottleneck=False, batch=False)
    layout |= _raft_encoder("context_encoder", (64, 64, 96, 128, 256), bottleneck=False, batch=True)
    motion = "update_block.motion_encoder"
    layout |= conv(f"{motion}.convcorr1.0", 256, 4 * 9 * 9, 1) | conv(f"{motion}.convcorr2.0", 192, 256, 3)
    layout |= conv(f"{motion}.convflow1.0", 128, 2, 7) | conv(f"{motion}.convflow2.0", 64, 128, 3)
    layout |= conv(f"{motion}.conv.0", 126, 192 + 64, 3)
    for gru, kernel in (("convgru1", (1, 5)), ("convgru2", (5, 1))):
        for gate in ("convz", "convr", "convq"):
            layout |= conv(f"update_block.recurrent_block.{gru}.{gate}", 128, 128 + 128 + 128, *kernel)
    layout |= conv("update_block.flow_head.conv1", 256, 128, 3) | conv("update_block.flow_head.conv2", 2, 256, 3)
    return layout | conv("mask_predictor.convrelu.0", 256, 128, 3) | conv("mask_predictor.conv", 8 * 8 * 9, 256, 1)


def raft_small() -> Layout:
    layout = _raft_encoder("feature_encoder", (32, 32, 64, 96, 128), bottleneck=True, batch=False)
    layout |= _raft_encoder("context_encoder", (32, 32, 64, 96, 160), bottleneck=True, batch=False)
    motion = "update_block.motion_encoder"
    layout |= conv(f"{motion}.convcorr1.0", 96, 4 * 7 * 7, 1)
    layout |= conv(f"{motion}.convflow1.0", 64, 2, 7) | conv(f"{motion}.convflow2.0", 32, 64, 3)
    layout |= conv(f"{motion}.conv.0", 80, 96 + 32, 3)
    for gate in ("convz", "convr", "convq"):
        layout |= conv(f"update_block.recurrent_block.convgru1.{gate}", 96, 96 + 82 + 64, 3)
    return layout | conv("update_block.flow_head.conv1", 128, 96, 3) | conv("update_block.flow_head.conv2", 2, 128, 3)


def craft() -> Layout:
    layout: Layout = {}
    vgg = {
        "slice1": ((0, 64, 3), (3, 64, 64), (7, 128, 64), (10, 128, 128)),
        "slice2": ((14, 256, 128), (17, 256, 256)),
        "slice3": ((20, 256, 256), (24, 512, 256), (27, 512, 512)),
        "slice4": ((30, 512, 512), (34, 512, 512), (37, 512, 512)),
    }
    for part, convolutions in vgg.items():
        for index, out, inp in convolutions:
            layout |= conv(f"basenet.{part}.{index}", out, inp, 3) | batch_norm(f"basenet.{part}.{index + 1}", out)
    layout |= conv("basenet.slice5.1", 1024, 512, 3) | conv("basenet.slice5.2", 1024, 1024, 1)
    for i, (inp, mid, out) in enumerate(((1024, 512, 256), (512, 256, 128), (256, 128, 64), (128, 64, 32)), 1):
        layout |= conv(f"upconv{i}.conv.0", mid, inp + mid, 1) | batch_norm(f"upconv{i}.conv.1", mid)
        layout |= conv(f"upconv{i}.conv.3", out, mid, 3) | batch_norm(f"upconv{i}.conv.4", out)
    for index, out, inp, kernel in ((0, 32, 32, 3), (2, 32, 32, 3), (4, 16, 32, 3), (6, 16, 16, 1), (8, 2, 16, 1)):
        layout |= conv(f"conv_cls.{index}", out, inp, kernel)
    return {f"module.{name}": shape for name, shape in layout.items()}


def crnn(classes: int, width: int = 256) -> Layout:
    """Generation 2: english_g2 has 97 classes (96 characters and the blank), latin_g2 352."""
    net = "FeatureExtraction.ConvNet"
    layout = conv(f"{net}.0", width // 8, 1, 3) | conv(f"{net}.3", width // 4, width // 8, 3)
    layout |= conv(f"{net}.6", width // 2, width // 4, 3) | conv(f"{net}.8", width // 2, width // 2, 3)
    layout |= conv(f"{net}.11", width, width // 2, 3, bias=False) | batch_norm(f"{net}.12", width)
    layout |= conv(f"{net}.14", width, width, 3, bias=False) | batch_norm(f"{net}.15", width)
    layout |= conv(f"{net}.18", width, width, 2)
    for i in range(2):
        for direction in ("", "_reverse"):
            rnn = f"SequenceModeling.{i}.rnn"
            layout |= {f"{rnn}.weight_{kind}_l0{direction}": (4 * width, width) for kind in ("ih", "hh")}
            layout |= {f"{rnn}.bias_{kind}_l0{direction}": (4 * width,) for kind in ("ih", "hh")}
        layout |= linear(f"SequenceModeling.{i}.linear", width, 2 * width)
    layout |= linear("Prediction", classes, width)
    return {f"module.{name}": shape for name, shape in layout.items()}


def parameters(layout: Layout) -> int:
    """Number of trained parameters."""
    import math

    counted = ("running_mean", "running_var", "num_batches_tracked", "input_resolution", "context_length", "vocab_size")
    return sum(math.prod(shape) for name, shape in layout.items() if not name.endswith(counted))


def write(layout: Layout, path: Path, seed: int | None = None) -> Path:
    """A file of this layout. Without a seed all values of a tensor are one stored number, so that a file of full size
    takes kilobytes; with one they are random, at a scale that keeps activations near one."""
    import torch

    generator = torch.Generator().manual_seed(seed or 0)

    def tensor(name: str, shape: tuple[int, ...]) -> Any:
        if name.endswith("num_batches_tracked") or (not shape and not name.endswith("logit_scale")):
            return torch.tensor(0)
        if seed is None:
            return torch.full((), 0.01).expand(shape)
        if name.endswith("logit_scale"):
            return torch.tensor(2.0)
        if name.endswith("running_var"):
            return torch.ones(shape)
        inputs = 1
        for size in shape[1:]:
            inputs *= size
        values = torch.randn(shape, generator=generator)
        return values * (2 / inputs) ** 0.5 if len(shape) > 1 else 0.2 * values + 1.0 * ("weight" in name)

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: tensor(name, shape) for name, shape in layout.items()}, path)
    return path


def own(path: Path, folder: Path) -> Path:
    """States the file's hash in its weights folder, as its owner would."""
    import hashlib

    with (folder / "sha256sums.txt").open("a") as file:
        file.write(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n")
    return path


def write_script(layout: Layout, path: Path, seed: int) -> Path:
    """The same as a TorchScript archive, the form in which OpenAI publishes CLIP."""
    import torch

    class Node(torch.nn.Module):
        def forward(self) -> int:
            return 0

    root = Node()
    for name, tensor in torch.load(write(layout, path, seed), weights_only=True).items():
        *parents, leaf = name.split(".")
        node: torch.nn.Module = root
        for parent in parents:
            if parent not in dict(node.named_children()):
                node.add_module(parent, Node())
            node = node.get_submodule(parent)
        node.register_buffer(leaf, tensor)
    torch.jit.save(torch.jit.script(root), path)
    return path


def tiny_clip_resnet() -> Layout:
    """RN50's layout in a size that runs in a test."""
    return clip_resnet(width=16, layers=(1, 2, 1, 1), embed=32, text=64, text_layers=2)


def tiny_clip_vit() -> Layout:
    """ViT's layout in a size that runs in a test."""
    return clip_vit(width=64, layers=2, patch=32, embed=48, text=64, text_layers=1, vocabulary=64)
