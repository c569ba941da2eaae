"""Folders of small videos and pictures."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(np.repeat(np.repeat(coarse, 16, axis=0), 16, axis=1)).save(path)
    return path


def video(path: Path, speed: float, frames: int = 8, size: int = 64, fps: int = 4, seed: int = 0) -> Path:
    """A texture that moves to the left by `speed` px a frame."""
    import av
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    wide = cv2.GaussianBlur(rng.integers(0, 256, (size, size + int(speed * frames) + 1, 3), np.uint8), (0, 0), 2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        stream.options = {"crf": "10"}
        for i in range(frames):
            x = round(i * speed)
            frame = np.ascontiguousarray(wide[:, x : x + size])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    return path


def listed(folder: Path, speeds: dict[float, float], **more: Any) -> Path:
    """A folder with a videos.jsonl: for each M asked for, a video of that speed."""
    lines = []
    for number, (asked, speed) in enumerate(speeds.items()):
        video(folder / f"v{number}.mp4", speed, seed=number)
        picture(folder / "faces" / f"p{number}.png", seed=number)
        lines.append(
            {"video": f"v{number}.mp4", "image": f"faces/p{number}.png", "prompt": f"a woman, number {number}"}
            | {"action": "smiling", "intensity": asked}
            | more
        )
    (folder / "videos.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
