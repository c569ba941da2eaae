"""A small manifest folder as the pipeline writes it: real videos of drawn faces under known motion, flow, metadata."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw

from manifests.schema import manifest_schema
from manifests.shards import write_shards
from stages.clip import Clip

SIZE = 64
FRAMES = 4
FPS = 8
ACTIONS = ("moves left", "moves right", "stays still")
COLOURS = ((220, 60, 60), (60, 180, 60), (70, 70, 230), (230, 200, 60))


def draw_face(colour: tuple[int, int, int], x: float, y: float = 32.0, radius: float = 14.0) -> np.ndarray:
    """uint8 (64, 64, 3): a disc with two eyes and a mouth, drawn at four times the size and averaged down."""
    scale = 4
    image = Image.new("RGB", (SIZE * scale, SIZE * scale), (40, 40, 40))
    draw = ImageDraw.Draw(image)

    def disc(cx: float, cy: float, r: float, fill: tuple[int, int, int]) -> None:
        draw.ellipse([scale * (cx - r), scale * (cy - r), scale * (cx + r), scale * (cy + r)], fill=fill)

    disc(x, y, radius, colour)
    for side in (-1, 1):
        disc(x + side * radius * 0.4, y - radius * 0.3, radius * 0.15, (255, 255, 255))
    draw.rectangle([scale * (x - 4), scale * (y + 6), scale * (x + 4), scale * (y + 8)], fill=(10, 10, 10))
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX))


def write_video(path: Path, frames: list[np.ndarray], fps: int) -> None:
    """H.264 of uint8 frames."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        stream.options = {"crf": "12"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())


def landmarks_at(x: float) -> list[float]:
    return [x - 5.6, 27.8, x + 5.6, 27.8, x, 33.0, x - 4, 39.0, x + 4, 39.0]


def make_run(folder: Path, clips: int = 12, stills: int = 1) -> Path:
    """Write source files, flow and manifest; returns the run's output folder. Clip i has colour i % 4, action i % 3."""
    root, out = folder / "source", folder / "out"
    rows: list[dict[str, Any]] = []
    for i in range(clips):
        speed = 0.0 if i % 3 == 2 else (2.0, 4.0)[i % 2]  # pixels per grid step
        velocity = (-speed, speed, 0.0)[i % 3]
        start = 32 - velocity * (FRAMES - 1) / 2

        def at(time: float, start: float = start, velocity: float = velocity) -> float:
            return start + velocity * time * 4

        path = f"person{i % 4}/clip{i:02}.mp4"
        times = np.arange(2 * FRAMES) / FPS
        write_video(root / path, [draw_face(COLOURS[i % 4], at(t)) for t in times], FPS)
        split = "val" if i >= clips - 4 else "train"
        rows.append(row_of(path, "video", speed, ACTIONS[i % 3], out, split))
        looked = [0, 2]
        rows[-1]["face_frames"] = looked
        rows[-1]["face_boxes"] = [[at(k / 4) - 14, 18, at(k / 4) + 14, 46] for k in looked]
        rows[-1]["face_landmarks"] = [landmarks_at(at(k / 4)) for k in looked]
    for i in range(stills):
        path = f"art/{i}.png"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_face(COLOURS[i], 32)).save(root / path)
        rows.append(row_of(path, "image", 0.0, "stays still", out, split="train"))
        rows[-1] |= {"face_frames": [0], "face_boxes": [[18, 18, 46, 46]], "face_landmarks": None, "flow_path": None}
    schema = manifest_schema()
    complete = [{name: row.get(name) for name in schema.names} for row in rows]
    spec = {"fps": 4.0, "stride": None, "count": FRAMES, "size": SIZE, "window": "first", "crop": "center"}
    batches = pa.Table.from_pylist(complete, schema=schema).to_batches()
    write_shards(out / "manifests", batches, schema, {"roots": {"drawn": str(root)}, "frames": spec})
    return out


def row_of(path: str, kind: str, m: float, action: str, out: Path, split: str) -> dict[str, Any]:
    clip_id = Clip("drawn", path, "video" if kind == "video" else "image", "").clip_id
    flow_path = f"flows/test/{clip_id[:2]}/{clip_id}.npz"
    if kind == "video":
        (out / flow_path).parent.mkdir(parents=True, exist_ok=True)
        magnitude = np.zeros((FRAMES - 1, SIZE // 8, SIZE // 8), np.uint8)
        magnitude[:, 2:6, :5] = 255 if m else 0
        np.savez(out / flow_path, magnitude=magnitude, maximum=np.full(FRAMES - 1, m, np.float32))
    video = kind == "video"
    return {
        "clip_id": clip_id,
        "source": "drawn",
        "path": path,
        "kind": kind,
        "start_s": 0.0,
        "duration_s": (FRAMES - 1) / 4 if video else None,
        "fps": float(FPS) if video else None,
        "width": SIZE,
        "height": SIZE,
        "grid_fps": 4.0,
        "grid_frames": FRAMES,
        "grid_size": SIZE,
        "crop": [0.0, 0.0, float(SIZE), float(SIZE)],
        "motion_intensity": m,
        "motion_intensity_capped": min(m, 20.0),
        "sample_weight": 1.0 + math.floor(m) / 10,
        "caption": f"a drawn face on dark ground, it {action}",
        "action": action,
        "flow_path": flow_path,
        "split": split,
    }


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a made-up run: 12 videos of four drawn people and one still."""
    return make_run(tmp_path_factory.mktemp("run"))


TINY = (
    "size=16",
    "channels=16,16",
    "text_dim=16",
    "patch=2",
    "lr=1e-3",
    "batch=2",
    "steps=6",
    "checkpoint_every=2",
    "keep_checkpoints=2",
    "gaps_every=100",
    "sample_every=100",
    "sample_steps=2",
    "arcface_steps=4",
    "warmup=2",
    "log_every=1",
)


def arguments(run_folder: Path, output: Path, cache: Path, *overrides: str) -> list[str]:
    """Command line of a tiny fit."""
    settings = [part for setting in (*TINY, *overrides) for part in ("--set", setting)]
    return [str(run_folder), "--output", str(output), "--cache", str(cache), *settings]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of decoded frames that the fits share."""
    return tmp_path_factory.mktemp("frames")


@pytest.fixture(scope="session")
def trained(run_folder: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a tiny fit that nothing disturbed."""
    torch = pytest.importorskip("torch")
    from training.fit import main

    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("fit") / "undisturbed"
    assert main(arguments(run_folder, output, cache)) == 0
    return output


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
