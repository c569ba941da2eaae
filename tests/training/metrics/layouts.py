"""Names and shapes of the published files of the evaluation's networks, written down from the upstream sources.

AMT-S: MCG-NKU/AMT, networks/AMT-S.py and networks/blocks/ (feat_enc.py, ifrnet.py, multi_flow.py, raft.py). DOVER:
VQAssessment/DOVER, dover/models/ (swin_backbone.py, conv_backbone.py, head.py) as dover.yml sets them up. MTCNN and
FaceNet: timesler/facenet-pytorch, models/mtcnn.py and models/inception_resnet_v1.py. RAFT and CLIP: see
benchmarks/upstream_layouts.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.upstream_layouts import Layout, batch_norm, conv, linear, norm, write


def conv3d(name: str, out: int, inp: int, *kernel: int) -> Layout:
    return {f"{name}.weight": (out, inp, *kernel), f"{name}.bias": (out,)}


def prelu_conv(name: str, out: int, inp: int, kernel: int = 3) -> Layout:
    return conv(f"{name}.0", out, inp, kernel) | {f"{name}.1.weight": (out,)}


def amt_s() -> Layout:
    layout = conv("feat_encoder.conv1", 32, 3, 7)
    inp = 32
    for layer, width in (("layer1", 32), ("layer2", 64), ("layer3", 96)):
        for i in range(2):
            block = f"feat_encoder.{layer}.{i}"
            layout |= conv(f"{block}.conv1", width // 4, inp, 1) | conv(f"{block}.conv2", width // 4, width // 4, 3)
            layout |= conv(f"{block}.conv3", width, width // 4, 1)
            if layer != "layer1" and i == 0:
                layout |= conv(f"{block}.downsample.0", width, inp, 1)
            inp = width
    layout |= conv("feat_encoder.conv2", 84, 96, 1)
    for level, (inp, out) in enumerate(((3, 20), (20, 32), (32, 44), (44, 56)), 1):
        layout |= prelu_conv(f"encoder.pyramid{level}.0", out, inp) | prelu_conv(f"encoder.pyramid{level}.1", out, out)
    for number, inp, width, out in ((4, 113, 112, 48), (3, 136, 132, 36), (2, 100, 96, 24), (1, 64, 60, 24)):
        block = f"decoder{number}.convblock"
        layout |= prelu_conv(f"{block}.0", width, inp)
        layout |= prelu_conv(f"{block}.1.conv1", width, width) | prelu_conv(f"{block}.1.conv2", 20, 20)
        layout |= prelu_conv(f"{block}.1.conv3", width, width) | prelu_conv(f"{block}.1.conv4", 20, 20)
        layout |= conv(f"{block}.1.conv5", width, width, 3) | {f"{block}.1.prelu.weight": (width,)}
        layout |= {f"{block}.2.weight": (width, out, 4, 4), f"{block}.2.bias": (out,)}
    for number, width in ((4, 44), (3, 32), (2, 20)):
        block = f"update{number}"
        layout |= conv(f"{block}.convc1", 64, 2 * 4 * 7 * 7, 1)
        layout |= conv(f"{block}.convf1", 40, 4, 7) | conv(f"{block}.convf2", 20, 40, 3)
        layout |= conv(f"{block}.conv", 68, 84, 3)
        layout |= conv(f"{block}.gru.0", 76, 68 + 4 + width, 3) | conv(f"{block}.gru.2", 76, 76, 3)
        layout |= conv(f"{block}.feat_head.0", 76, 76, 3) | conv(f"{block}.feat_head.2", width, 76, 3)
        layout |= conv(f"{block}.flow_head.0", 76, 76, 3) | conv(f"{block}.flow_head.2", 4, 76, 3)
    layout |= conv("comb_block.0", 18, 9, 3) | {"comb_block.1.weight": (18,)} | conv("comb_block.2", 3, 18, 3)
    return layout


def dover() -> Layout:
    swin = "technical_backbone"
    layout = conv3d(f"{swin}.patch_embed.proj", 96, 3, 2, 4, 4) | norm(f"{swin}.patch_embed.norm", 96)
    for stage, (depth, heads) in enumerate(((2, 3), (2, 6), (6, 12), (2, 24))):
        width = 96 * 2**stage
        for i in range(depth):
            block = f"{swin}.layers.{stage}.blocks.{i}"
            layout |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
            layout |= {f"{block}.attn.relative_position_bias_table": (15 * 13 * 13, heads)}
            if stage < 3:
                layout |= {f"{block}.attn.fragment_position_bias_table": (15 * 13 * 13, heads)}
            layout |= {f"{block}.attn.relative_position_index": (392, 392)}
            layout |= linear(f"{block}.attn.qkv", 3 * width, width) | linear(f"{block}.attn.proj", width, width)
            layout |= linear(f"{block}.mlp.fc1", 4 * width, width) | linear(f"{block}.mlp.fc2", width, 4 * width)
        if stage < 3:
            down = f"{swin}.layers.{stage}.downsample"
            layout |= {f"{down}.reduction.weight": (2 * width, 4 * width)} | norm(f"{down}.norm", 4 * width)
    layout |= norm(f"{swin}.norm", 768)
    net, widths = "aesthetic_backbone", (96, 192, 384, 768)
    layout |= conv3d(f"{net}.downsample_layers.0.0", 96, 3, 2, 4, 4) | norm(f"{net}.downsample_layers.0.1", 96)
    for i in (1, 2, 3):
        layout |= norm(f"{net}.downsample_layers.{i}.0", widths[i - 1])
        layout |= conv3d(f"{net}.downsample_layers.{i}.1", widths[i], widths[i - 1], 1, 2, 2)
    for stage, depth in enumerate((3, 3, 9, 3)):
        width = widths[stage]
        for i in range(depth):
            block = f"{net}.stages.{stage}.{i}"
            layout |= {f"{block}.gamma": (width,)} | norm(f"{block}.norm", width)
            layout |= conv3d(f"{block}.dwconv", width, 1, 3 if i % 3 == 1 else 1, 7, 7)
            layout |= linear(f"{block}.pwconv1", 4 * width, width) | linear(f"{block}.pwconv2", width, 4 * width)
    layout |= norm(f"{net}.norm", 768)
    for head in ("technical_head", "aesthetic_head"):
        layout |= conv3d(f"{head}.fc_hid", 64, 768, 1, 1, 1) | conv3d(f"{head}.fc_last", 1, 64, 1, 1, 1)
    return layout


def mtcnn() -> dict[str, Layout]:
    def convs(*widths: tuple[int, int, int]) -> Layout:
        layout: Layout = {}
        for i, (out, inp, kernel) in enumerate(widths, 1):
            layout |= conv(f"conv{i}", out, inp, kernel) | {f"prelu{i}.weight": (out,)}
        return layout

    pnet = convs((10, 3, 3), (16, 10, 3), (32, 16, 3)) | conv("conv4_1", 2, 32, 1) | conv("conv4_2", 4, 32, 1)
    rnet = convs((28, 3, 3), (48, 28, 3), (64, 48, 2)) | linear("dense4", 128, 576) | {"prelu4.weight": (128,)}
    rnet |= linear("dense5_1", 2, 128) | linear("dense5_2", 4, 128)
    onet = convs((32, 3, 3), (64, 32, 3), (64, 64, 3), (128, 64, 2)) | linear("dense5", 256, 1152)
    onet |= {"prelu5.weight": (256,)} | linear("dense6_1", 2, 256) | linear("dense6_2", 4, 256)
    return {"pnet": pnet, "rnet": rnet, "onet": onet | linear("dense6_3", 10, 256)}


def facenet() -> Layout:
    def basic(name: str, out: int, inp: int, *kernel: int) -> Layout:
        return conv(f"{name}.conv", out, inp, *kernel, bias=False) | batch_norm(f"{name}.bn", out)

    layout = basic("conv2d_1a", 32, 3, 3) | basic("conv2d_2a", 32, 32, 3) | basic("conv2d_2b", 64, 32, 3)
    layout |= basic("conv2d_3b", 80, 64, 1) | basic("conv2d_4a", 192, 80, 3) | basic("conv2d_4b", 256, 192, 3)
    for i in range(5):
        block = f"repeat_1.{i}"
        layout |= basic(f"{block}.branch0", 32, 256, 1) | conv(f"{block}.conv2d", 256, 96, 1)
        for branch, depth in (("branch1", 2), ("branch2", 3)):
            for j in range(depth):
                layout |= basic(f"{block}.{branch}.{j}", 32, 256 if j == 0 else 32, 1 if j == 0 else 3)
    layout |= basic("mixed_6a.branch0", 384, 256, 3) | basic("mixed_6a.branch1.0", 192, 256, 1)
    layout |= basic("mixed_6a.branch1.1", 192, 192, 3) | basic("mixed_6a.branch1.2", 256, 192, 3)
    blocks = [(f"repeat_2.{i}", 896, 128, 7) for i in range(10)]
    blocks += [(f"repeat_3.{i}", 1792, 192, 3) for i in range(5)] + [("block8", 1792, 192, 3)]
    for block, width, inner, reach in blocks:
        layout |= basic(f"{block}.branch0", inner, width, 1) | basic(f"{block}.branch1.0", inner, width, 1)
        layout |= basic(f"{block}.branch1.1", inner, inner, 1, reach) | basic(
            f"{block}.branch1.2", inner, inner, reach, 1
        )
        layout |= conv(f"{block}.conv2d", width, 2 * inner, 1)
    for branch, last in (("branch0", (384, 256)), ("branch1", (256, 256))):
        layout |= basic(f"mixed_7a.{branch}.0", 256, 896, 1) | basic(f"mixed_7a.{branch}.1", *last, 3)
    layout |= basic("mixed_7a.branch2.0", 256, 896, 1)
    layout |= basic("mixed_7a.branch2.1", 256, 256, 3) | basic("mixed_7a.branch2.2", 256, 256, 3)
    layout |= {"last_linear.weight": (512, 1792)} | batch_norm("last_bn", 512)
    return layout | linear("logits", 8631, 512)


def write_state(layout: Layout, path: Path, seed: int | None = None) -> Path:
    """As upstream_layouts.write, under `state_dict`, as amt-s.pth is saved."""
    import torch

    state: dict[str, Any] = torch.load(write(layout, path, seed), weights_only=True)
    torch.save({"state_dict": state, "epoch": 300}, path)
    return path
