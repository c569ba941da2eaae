"""Random weights for the paper profile, in the published layouts: of full size, or tiny with `small`.

Speed does not depend on what the weights are, but for MiniGPT-4's answers (benchmarks/minigpt4_files.py). CRAFT, CRNN
and the real detector have one size only.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import upstream_layouts
from benchmarks.minigpt4_files import write_minigpt4
from stages import weights

DETECTOR = (
    "scrfd_2.5g_kps"  # the one real file: a random detector finds no face, and a clip without one goes no further
)


def write_weights(folder: Path, small: bool, engines: Collection[str]) -> dict[str, Any]:
    """Writes what these stages' engines need, but for the detector; returns the `stages` of sources.yaml that go with
    it."""
    raft = "raft_small" if small else "raft_large"
    layouts = {
        "quality": {"clip-rn50": upstream_layouts.tiny_clip_resnet() if small else upstream_layouts.clip_resnet()},
        "text": {"craft_mlt_25k": upstream_layouts.craft(), "english_g2": upstream_layouts.crnn(97)},
        "embedding": {"clip-vit-l-14": upstream_layouts.tiny_clip_vit() if small else upstream_layouts.clip_vit()},
        "motion": {raft: upstream_layouts.raft_small() if small else upstream_layouts.raft_large()},
    }
    for engine, files in layouts.items():
        for name, layout in files.items() if engine in engines else ():
            upstream_layouts.own(upstream_layouts.write(layout, folder / weights.WEIGHTS[name].file, seed=1), folder)
    if "face" in engines:
        recogniser = folder / weights.WEIGHTS["w600k_r50"].file
        write_iresnet(recogniser, *((16, (1, 1, 1, 1)) if small else (64, (3, 4, 14, 3))))
        upstream_layouts.own(recogniser, folder)
    if "caption" in engines:
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
