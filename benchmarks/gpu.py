"""Speed of the paper's engines and of the whole paper profile, with random weights, on whatever device there is.

    python -m benchmarks.gpu [--pipeline FOLDER] [--small] [--device cuda:0] [--engines quality text ...] [--keep]
    python -m benchmarks.gpu --pipeline FOLDER --copies 1 --clips 1 --repeat 1 --workers 1 --caption-precision bfloat16

Networks have the published sizes; with --small tiny ones, and frames of 128 pixels, three a clip: figures of that form
say that the benchmark works and nothing about a GPU. Per engine: clips per second, of the whole stage, of the stage
with two calls at once as an actor on a GPU has them, and of the bare network on a batch as large that is already on
the device; the shares of the bare speed that these keep; of the time with two calls, the share in which the stage held
the device; the network's floating-point operations and the share of the device's measured matrix-product peak that the
stage reaches; for captions, the share of the measured copy bandwidth that reading the language model for each token
takes; peak memory.

--pipeline takes each .mp4 of FOLDER `--copies` times through the paper profile and the Ray runner
(benchmarks/gpu_pipeline.py): clips per second after warm-up, what that keeps of the bare networks' speed, the share of
the time in which the device was held by a stage and in which it was busy, peak memory.

On a CPU the device is one core: networks run on one thread, an engine has one call at once, and of the pipeline each
actor counts as a device. MiniGPT-4 takes 31 GB there in single precision and 16 GB in bfloat16, in each actor: the
second line above is for a machine of 24 GB.

Speed does not depend on what the weights are, but for text: with random weights there is nothing for the recogniser, or
everywhere. Faces need a real detector, scrfd_2.5g_kps, in HUMAN_MOTION_WEIGHTS.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_engines import ENGINES, Bench, build, samples
from benchmarks.gpu_pipeline import against_bare, run_profile
from benchmarks.gpu_weights import DETECTOR, write_weights
from benchmarks.machine import describe, keep
from curation.batching import Batching
from stages import weights
from stages.base import ClipError, Sample
from stages.frames import FrameSpec

SMALL = {"count": 3, "size": 128}


def seconds(work: Callable[[], Any], device: str, repeat: int) -> float:
    """Mean time of `work`, which has run before: the first time takes longer."""
    with torch.inference_mode():
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
    """Clips per second with two threads at one engine, and the share of the time in which a GPU was held."""
    batching = Batching("stage", engine, device)
    batching.measure(batch)
    started = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: batching.measure(batch), range(2 * repeat)))
    elapsed = time.perf_counter() - started
    return 2 * repeat * len(batch) / elapsed, sum(batched.gpu_seconds or 0.0 for batched in found) / elapsed


def peaks(device: str) -> dict[str, float]:
    """Measured: matrix product in TFLOP/s, copy within the device in GB/s; the best of ten each.

    The product is of bfloat16; on a CPU of float32 where that is faster: many have no instructions for bfloat16.
    """
    side = 8192 if device != "cpu" else 1024
    block = torch.empty((2**30 if device != "cpu" else 2**27) // 4, device=device)
    other = torch.empty_like(block)

    def best(work: Callable[[], Any]) -> float:
        work()
        return min(seconds(work, device, 1) for _ in range(10))

    a = torch.rand(side, side, device=device)
    products = [a.bfloat16(), a] if device == "cpu" else [a.bfloat16()]
    product = min(best(lambda a=a: a @ a) for a in products)  # type: ignore[misc]
    copy = best(lambda: other.copy_(block))
    return {"matmul_tflops": 2 * side**3 / product / 1e12, "copy_gb_s": 2 * 4 * block.numel() / copy / 1e9}


def measure(bench: Bench, batch: list[Sample], device: str, repeat: int, peak: dict[str, float]) -> dict[str, float]:
    """The figures of one engine. Raises ClipError where it cannot measure a clip: that costs less than measuring it."""
    from torch.utils.flop_counter import FlopCounterMode

    clips = len(batch)
    for result in bench.engine.measure(batch):
        if isinstance(result, ClipError):
            raise result
        assert result.columns.get("face_fraction", 1) == 1, "a face was missed: less work than the bare networks'"
    found = {"clips_per_s": clips / seconds(lambda: bench.engine.measure(batch), device, repeat)}
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        bench.bare()
    found["bare_clips_per_s"] = clips / seconds(bench.bare, device, repeat)
    found["kept_of_bare"] = found["clips_per_s"] / found["bare_clips_per_s"]
    if counter.get_total_flops():  # onnxruntime's are not seen
        found["tflop_per_clip"] = counter.get_total_flops() / 1e12 / clips
        found["of_matmul_peak"] = found["tflop_per_clip"] * found["clips_per_s"] / peak["matmul_tflops"]
    if bench.tokens:
        read_gb_s = bench.read_bytes * bench.tokens * found["clips_per_s"] / clips / 1e9
        found["of_copy_peak"] = read_gb_s / peak["copy_gb_s"]
    if device != "cpu":
        found["two_calls_clips_per_s"], found["device_held"] = two_calls(bench.engine, batch, device, repeat)
        found["kept_of_bare_with_two_calls"] = found["two_calls_clips_per_s"] / found["bare_clips_per_s"]
        found["peak_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return found


def rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="tiny networks and frames")
    parser.add_argument("--clips", type=int, default=4, help="clips per call")
    parser.add_argument("--repeat", type=int, default=2, help="timed calls")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--pipeline", type=Path, metavar="FOLDER", help="also the whole profile on its .mp4 clips")
    parser.add_argument("--copies", type=int, default=4, help="how often each of them is taken")
    parser.add_argument("--workers", type=int, metavar="N", help="actors of the profile at most")
    parser.add_argument(
        "--caption-precision", choices=["auto", "float32", "float16", "bfloat16"], default="auto", help="of MiniGPT-4"
    )
    parser.add_argument("--keep", action="store_true", help="write the figures to benchmarks/results")
    args = parser.parse_args()
    if args.pipeline and args.engines != list(ENGINES):
        parser.error("--pipeline is held against all engines: leave --engines out")
    if args.pipeline and len(list(args.pipeline.glob("*.mp4"))) * args.copies < 2:
        parser.error("--pipeline needs two clips or more, for the first warm up: more .mp4 in FOLDER, or more --copies")
    if weights.missing([DETECTOR]):
        parser.error(f"{DETECTOR}: {weights.how_to_get(DETECTOR)}")
    frames = SMALL if args.small else {}
    spec = FrameSpec(**frames)
    figures: dict[str, Any] = {"command": shlex.join(["python", "-m", "benchmarks.gpu", *sys.argv[1:]])}
    figures |= {"device": args.device, "small": args.small, "clips_per_call": args.clips}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        given = os.environ.get(weights.VARIABLE)
        os.environ[weights.VARIABLE] = os.pathsep.join([temporary, *([given] if given else [])])
        # In a process of its own: this one stays small beside the actors.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            stages = pool.submit(write_weights, folder, args.small, args.engines).result()
        stages["caption"]["precision"] = args.caption_precision
        if args.pipeline:  # first: this process then holds nothing of the device yet
            pipeline = run_profile(args.pipeline, args.copies, args.workers, stages, frames, folder)
            print("pipeline", rounded(pipeline), flush=True)
        if args.device == "cpu":
            torch.set_num_threads(1)
        else:
            figures["gpu"] = torch.cuda.get_device_name(args.device)
        figures |= {"peaks": rounded(peaks(args.device)), "engines": {}}
        print({k: v for k, v in figures.items() if k != "engines"}, flush=True)
        for name in args.engines:
            if args.device != "cpu":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(args.device)
            bench = build(name, stages.get(name, {}), spec, args.device, args.clips)
            found = measure(bench, samples(args.clips, spec), args.device, args.repeat, figures["peaks"])
            figures["engines"][name] = rounded(found)
            print(name, figures["engines"][name], flush=True)
            del bench
    if args.pipeline:
        against_bare(pipeline, figures["engines"], figures["peaks"]["matmul_tflops"])
        figures["pipeline"] = rounded(pipeline)
    packages = ("torch", "torchvision", "onnxruntime", "transformers", "ray")
    if args.keep:
        kind = "gpu-small" if args.small else "gpu-full"
        print(keep(f"{kind}_{args.device.partition(':')[0]}", figures, *packages))
    print(json.dumps({"machine": describe(*packages), **figures}))


if __name__ == "__main__":
    main()
