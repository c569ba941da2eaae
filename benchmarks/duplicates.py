"""How well the hash of a clip's frames finds copies: recall by what was done to the copy, and pairs found wrongly.

    python -m benchmarks.duplicates FOLDER [FOLDER ...] [--keep]

Each readable .mp4 below the folders is changed after decoding and hashed again. All other pairs count as strangers;
where a folder has several clips of one rendered person before one ground, those are the hard ones. The hash alone is
looked at: a run also asks that the motion intensities, and embeddings where there are any, agree.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from benchmarks.machine import keep
from curation.profiles import COMMON_THRESHOLDS
from stages.base import ClipError
from stages.decode import Decoder
from stages.frames import FrameSpec
from stages.hash import MIRROR, perceptual_hash

Frames = np.ndarray  # uint8 (n, h, w, 3)


def cropped(frames: Frames, share: float, corner: bool = False) -> Frames:
    """Without `share` of width and height, half of it at either side; `corner`: all at the right and the bottom."""
    height, width = frames.shape[1:3]
    cut_y, cut_x = int(height * share), int(width * share)
    y, x = (0, 0) if corner else (cut_y // 2, cut_x // 2)
    return frames[:, y : y + height - cut_y, x : x + width - cut_x]


def encoded(frames: Frames, quality: int) -> Frames:
    """Through JPEG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return np.stack([cv2.imdecode(cv2.imencode(".jpg", frame, options)[1], cv2.IMREAD_COLOR) for frame in frames])


def scaled(frames: Frames, factor: float) -> Frames:
    return np.stack([cv2.resize(f, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) for f in frames])


CHANGES: dict[str, Callable[[Frames], Frames]] = {
    "JPEG of quality 20": lambda f: encoded(f, 20),
    "scaled by 0.5": lambda f: scaled(f, 0.5),
    "mirrored": lambda f: f[:, :, ::-1],
    "brighter by 15 % and 15": lambda f: np.clip(f * 1.15 + 15, 0, 255).astype(np.uint8),
    "darker by 25 %": lambda f: (f * 0.75).astype(np.uint8),
    "cropped by 2 %": lambda f: cropped(f, 0.02),
    "cropped by 4 %": lambda f: cropped(f, 0.04),
    "cropped by 8 %": lambda f: cropped(f, 0.08),
    "cropped by 16 %": lambda f: cropped(f, 0.16),
    "cropped by 2 % at a corner": lambda f: cropped(f, 0.02, corner=True),
    "cropped by 4 % at a corner": lambda f: cropped(f, 0.04, corner=True),
    "cropped by 8 % at a corner": lambda f: cropped(f, 0.08, corner=True),
    "cropped by 4 %, mirrored, JPEG of quality 30": lambda f: encoded(cropped(f, 0.04)[:, :, ::-1], 30),
}


def alike(a: np.ndarray, b: np.ndarray) -> float:
    """Share of equal bits of two hashes, as they are or with one mirrored."""
    return 1 - min(int(np.bitwise_count(a ^ b).sum()), int(np.bitwise_count(a ^ b ^ MIRROR).sum())) / (64 * len(a))


def measure(folder: Path) -> dict[str, object]:
    """Recall by change, and how alike strangers are, of one folder."""
    limit = COMMON_THRESHOLDS["max_duplicate_similarity"]
    clips: list[Frames] = []
    with Decoder(120) as decoder:
        for path in sorted(folder.rglob("*.mp4")):
            try:
                header = decoder.header(str(path), "video")
                clips.append(decoder.frames(str(path), "video", FrameSpec(), header).images)
            except ClipError:
                continue  # too short for the grid, or one of the broken files of examples.portraits
    hashes = [perceptual_hash(frames) for frames in clips]
    recall = {}
    for name, change in CHANGES.items():
        found = [alike(h, perceptual_hash(np.ascontiguousarray(change(f)))) for h, f in zip(hashes, clips, strict=True)]
        recall[name] = {
            "found": round(float(np.mean(np.array(found) > limit)), 3),
            "median": round(np.median(found), 3),
        }
    pairs = sorted((alike(a, b) for a, b in itertools.combinations(hashes, 2)), reverse=True)
    wrong = sum(share > limit for share in pairs)
    return {
        "clips": len(clips),
        "threshold": limit,
        "recall": recall,
        "pairs": len(pairs),
        "found_wrongly": wrong,
        "most_alike": [round(share, 3) for share in pairs[:5]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.duplicates", description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--keep", action="store_true", help="write the figures to benchmarks/results/duplicates.json")
    args = parser.parse_args()
    figures = {folder.name: measure(folder) for folder in args.folders}
    print(json.dumps(figures, indent=1))
    if args.keep:
        print(keep("duplicates", figures, "opencv-python-headless", "numpy"))


if __name__ == "__main__":
    main()
