"""Speed of the paper's engines at full size with random weights, on whatever device there is.

    python -m benchmarks.gpu [--device cuda] [--clips 4] [--repeat 2] [--engines quality text face embedding motion]

Per engine: clips per second, of the whole stage, of the stage with two calls at once as an actor on a GPU has them, and
of the bare network on data that is already on the device; the shares of the bare speed that these keep; of the time
with two calls, the share in which the stage held the device; the network's floating-point operations and the share of
the device's measured matrix-product peak that the stage reaches; peak memory.
Speed does not depend on what the weights are, but
for text: with random weights no text is found, and the recogniser has nothing to do. Face needs a real detector,
scrfd_2.5g_kps, in HUMAN_MOTION_WEIGHTS, and is left out without; it has no bare network to compare with.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import keep
from curation.batching import Batching
from stages import weights
from stages.base import Sample
from stages.clip import Clip
from stages.clip_iqa import ClipIqa, ClipIqaParams
from stages.easyocr_text import EasyOcr, EasyOcrParams
from stages.embedding import OpenClip, OpenClipParams
from stages.frames import Frames, FrameSpec
from stages.insightface_face import InsightFace, InsightFaceParams
from stages.raft_motion import RaftMotion, RaftParams
from tests import upstream_layouts

SPEC = FrameSpec()
ENGINES = ("quality", "text", "face", "embedding", "motion")


@dataclass
class Bench:
    """An engine that is set up, and its network's work for one clip on data that lies on the device."""

    engine: Any
    bare: Callable[[], Any] | None


def write_weights(folder: Path) -> None:
    """Random models of the published layouts and sizes."""
    layouts = {
        "clip-rn50": upstream_layouts.clip_resnet(),
        "clip-vit-l-14": upstream_layouts.clip_vit(),
        "craft_mlt_25k": upstream_layouts.craft(),
        "english_g2": upstream_layouts.crnn(97),
        "raft_large": upstream_layouts.raft_large(),
    }
    for name, layout in layouts.items():
        upstream_layouts.own(upstream_layouts.write(layout, folder / weights.WEIGHTS[name].file, seed=1), folder)


def samples(count: int) -> list[Sample]:
    """Clips of 16:9 noise that moves, shorter side 512, with a face box in the middle."""
    rng = np.random.default_rng(0)
    wide = np.kron(rng.integers(0, 256, (72, 130, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    images = np.stack([wide[2 * i : 2 * i + 512, 3 * i : 3 * i + 912] for i in range(SPEC.count)])
    box = [396.0, 196.0, 516.0, 316.0]
    columns = {
        "crop": [200.0, 0.0, 712.0, 512.0],
        "face_frames": list(range(SPEC.count)),
        "frame_boxes": [box] * SPEC.count,
        "face_boxes": [[box[0] - 200, box[1], box[2] - 200, box[3]]] * SPEC.count,
    }
    frames = Frames(images, np.arange(SPEC.count) / 4, (912, 512), "pyav")
    return [Sample(Clip("s", f"{i}.mp4", "video", "1"), columns, frames) for i in range(count)]


def build(name: str, device: str) -> Bench:
    """The engine on the device."""
    engine: Any = {
        "quality": lambda: ClipIqa(ClipIqaParams(), SPEC),
        "text": lambda: EasyOcr(EasyOcrParams(), SPEC),
        "face": lambda: InsightFace(InsightFaceParams(detector="scrfd_2.5g_kps", recogniser=None), SPEC),
        "embedding": lambda: OpenClip(OpenClipParams(), SPEC),
        "motion": lambda: RaftMotion(RaftParams(), SPEC),
    }[name]()
    engine.setup(device)
    half = device != "cpu"

    def picture(count: int, h: int, w: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.rand(count, 3, h, w, device=device, dtype=dtype).to(memory_format=torch.channels_last)

    if name == "quality":
        one = picture(1, 512, 912, torch.float16 if half else torch.float32)
        return Bench(engine, lambda: engine.model(one, pos_embedding=False))
    if name == "text":
        three = picture(3, 512, 928)  # EasyOCR pads to multiples of 32
        return Bench(engine, lambda: engine.reader.detector(three))
    if name == "embedding":
        two = picture(2, 224, 224, engine.dtype)
        return Bench(engine, lambda: engine.visual(two))
    if name == "motion":
        before, after = picture(15, 512, 512), picture(15, 512, 512)

        def raft() -> Any:
            with engine.raft._precision():
                return engine.raft.model(before, after)

        return Bench(engine, raft)
    return Bench(engine, None)


def seconds(work: Callable[[], Any], device: str, repeat: int) -> float:
    """Mean time of `work` after one warm-up."""
    with torch.inference_mode():
        work()
        _wait(device)
        started = time.perf_counter()
        for _ in range(repeat):
            work()
        _wait(device)
    return (time.perf_counter() - started) / repeat


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def two_calls(engine: Any, batch: list[Sample], device: str, repeat: int) -> tuple[float, float]:
    """Clips per second with two threads at one engine, and the share of the time in which a GPU was held (0 on CPU)."""
    batching = Batching("stage", engine, device)
    batching.measure(batch)
    started = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: batching.measure(batch), range(2 * repeat)))
    elapsed = time.perf_counter() - started
    return 2 * repeat * len(batch) / elapsed, sum(batched.gpu_seconds or 0.0 for batched in found) / elapsed


def peaks(device: str) -> dict[str, float]:
    """Measured: matrix product (bfloat16, on a CPU float32) in TFLOP/s, copy within the device in GB/s."""
    side = 8192 if device != "cpu" else 1024
    a = torch.rand(side, side, device=device).to(torch.bfloat16 if device != "cpu" else torch.float32)
    block = torch.empty((2**30 if device != "cpu" else 2**27) // 4, device=device)
    other = torch.empty_like(block)
    product = seconds(lambda: a @ a, device, 10)
    copy = seconds(lambda: other.copy_(block), device, 10)
    return {"matmul_tflops": 2 * side**3 / product / 1e12, "copy_gb_s": 2 * 4 * block.numel() / copy / 1e9}


def measure(name: str, device: str, clips: int, repeat: int, peak_tflops: float) -> dict[str, float]:
    """The figures of one engine."""
    from torch.utils.flop_counter import FlopCounterMode

    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
    bench = build(name, device)
    batch = samples(clips)
    found = {"clips_per_s": clips / seconds(lambda: bench.engine.measure(batch), device, repeat)}
    found["two_calls_clips_per_s"], busy = two_calls(bench.engine, batch, device, repeat)
    if device != "cpu":
        found["device_held"] = busy
    if bench.bare is not None:
        found["bare_clips_per_s"] = 1 / seconds(bench.bare, device, repeat)
        found["kept_of_bare"] = found["clips_per_s"] / found["bare_clips_per_s"]
        found["kept_of_bare_with_two_calls"] = found["two_calls_clips_per_s"] / found["bare_clips_per_s"]
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            bench.bare()
        found["tflop_per_clip"] = counter.get_total_flops() / 1e12
        found["of_matmul_peak"] = found["tflop_per_clip"] * found["clips_per_s"] / peak_tflops
    if device != "cpu":
        found["peak_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clips", type=int, default=4, help="clips per call")
    parser.add_argument("--repeat", type=int, default=2, help="timed calls")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    args = parser.parse_args()
    figures: dict[str, Any] = {"device": args.device, "clips_per_call": args.clips, "threads": torch.get_num_threads()}
    if args.device != "cpu":
        figures["gpu"] = torch.cuda.get_device_name(args.device)
    figures |= {"peaks": peaks(args.device), "engines": {}}
    print({k: v for k, v in figures.items() if k != "engines"}, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        given = os.environ.get(weights.VARIABLE)
        os.environ[weights.VARIABLE] = os.pathsep.join([folder, *([given] if given else [])])
        write_weights(Path(folder))
        for name in args.engines:
            if name == "face" and weights.missing(["scrfd_2.5g_kps"]):
                print("face: left out, no scrfd_2.5g_kps", flush=True)
                continue
            found = measure(name, args.device, args.clips, args.repeat, figures["peaks"]["matmul_tflops"])
            figures["engines"][name] = {key: float(f"{value:.4g}") for key, value in found.items()}
            print(name, figures["engines"][name], flush=True)
    print(keep(f"gpu_{args.device.partition(':')[0]}", figures, "torch", "torchvision", "onnxruntime"))


if __name__ == "__main__":
    main()
