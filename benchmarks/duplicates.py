"""How well the hash of a clip's frames finds copies: recall by what was done to the copy, and pairs found wrongly.

    python -m benchmarks.duplicates FOLDER [FOLDER ...] [--courses] [--keep]

Each readable .mp4 below the folders is changed after decoding and hashed again. All other pairs count as strangers;
where a folder has several clips of one rendered person before one ground, those are the hard ones. The hash alone is
looked at: a run also asks that the motion intensities, and embeddings where there are any, agree. `--courses` does the
same for the course of the face (curation/courses.py), by the embedded profile's engines, some 20 s a clip; a run asks
for the same face besides.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.machine import keep
from curation.courses import MIRROR as COURSE_MIRROR
from curation.courses import course, hash_of, is_telling
from curation.profiles import COMMON_THRESHOLDS
from stages import crop, face, motion
from stages.base import ClipError, Engine, Sample
from stages.clip import Clip
from stages.decode import Decoder
from stages.frames import Frames as Decoded
from stages.frames import FrameSpec
from stages.hash import MIRROR, perceptual_hash

Frames = np.ndarray  # uint8 (n, h, w, 3)
SPEC = FrameSpec()
LIMIT = COMMON_THRESHOLDS["max_duplicate_similarity"]


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
    "cropped by 25 %": lambda f: cropped(f, 0.25),
    "cropped by 2 % at a corner": lambda f: cropped(f, 0.02, corner=True),
    "cropped by 4 % at a corner": lambda f: cropped(f, 0.04, corner=True),
    "cropped by 8 % at a corner": lambda f: cropped(f, 0.08, corner=True),
    "cropped by 16 % at a corner": lambda f: cropped(f, 0.16, corner=True),
    "cropped by 4 %, mirrored, JPEG of quality 30": lambda f: encoded(cropped(f, 0.04)[:, :, ::-1], 30),
}
HARD = [name for name in CHANGES if name.startswith("cropped") and "2 %" not in name]  # courses cost more


def hashed(frames: Frames) -> list[np.ndarray]:
    """The hash of the frames, and that of the mirrored ones."""
    words = perceptual_hash(np.ascontiguousarray(frames))
    return [words, words ^ MIRROR]


class Course:
    """Hashes of the course of the face, and of the mirrored one; None where no face is followed, or its course tells
    nothing."""

    def __init__(self) -> None:
        kinds = (face.Dlib, crop.Square, motion.Dis)
        self.engines: list[Engine] = [kind(kind.Params(), SPEC) for kind in kinds]
        for engine in self.engines:
            engine.setup("cpu")

    def __call__(self, frames: Frames) -> list[np.ndarray] | None:
        height, width = frames.shape[1:3]
        scale = SPEC.size / min(height, width)
        size = round(width * scale), round(height * scale)
        images = np.stack([cv2.resize(np.ascontiguousarray(f), size, interpolation=cv2.INTER_AREA) for f in frames])
        columns: dict[str, object] = {"width": size[0], "height": size[1]}
        for engine in self.engines:
            sample = Sample(Clip("s", "a.mp4", "video", ""), columns, Decoded(images, np.zeros(0), size, "pyav"))
            (measured,) = engine.measure([sample])
            if isinstance(measured, ClipError):
                return None
            columns |= measured.columns
        if columns["face_motion"] is None:
            return None
        found = course(np.array([columns["face_motion"]], np.float32))
        return [hash_of(found)[0], hash_of(found * COURSE_MIRROR)[0]] if is_telling(found)[0] else None


def alike(one: list[np.ndarray] | None, other: list[np.ndarray] | None) -> float:
    """Share of equal bits of two hashes, as they are or with one mirrored; 0 where one is missing."""
    if one is None or other is None:
        return 0.0
    return 1 - min(int(np.bitwise_count(one[0] ^ words).sum()) for words in other) / (64 * len(one[0]))


def measure(folder: Path, courses: bool) -> dict[str, object]:
    """Recall by change, and how alike strangers are, of one folder: by the hash and, where asked, by the course."""
    clips: list[Frames] = []
    with Decoder(120) as decoder:
        for path in sorted(folder.rglob("*.mp4")):
            try:
                header = decoder.header(str(path), "video")
                clips.append(decoder.frames(str(path), "video", SPEC, header).images)
            except ClipError:
                continue  # too short for the grid, or one of the broken files of examples.portraits
    figures: dict[str, object] = {"clips": len(clips), "threshold": LIMIT, **found_by(hashed, clips, [*CHANGES])}
    return figures | {"course": found_by(Course(), clips, HARD)} if courses else figures


def found_by(
    hash_of: Callable[[Frames], list[np.ndarray] | None], clips: list[Frames], changes: list[str]
) -> dict[str, object]:
    """What hashes of this kind find and take for copies among the clips."""
    hashes = [hash_of(frames) for frames in clips]
    recall = {}
    for name in tqdm(changes, desc="changes"):
        found = [alike(h, hash_of(CHANGES[name](f))) for h, f in zip(hashes, clips, strict=True)]
        recall[name] = {
            "found": round(float(np.mean(np.array(found) > LIMIT)), 3),
            "median": round(np.median(found), 3),
        }
    pairs = sorted((alike(a, b) for a, b in itertools.combinations(hashes, 2)), reverse=True)
    return {
        "recall": recall,
        "pairs": len(pairs),
        "found_wrongly": sum(share > LIMIT for share in pairs),
        "most_alike": [round(share, 3) for share in pairs[:5]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.duplicates", description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--courses", action="store_true", help="also the courses of the faces, at some 20 s a clip")
    parser.add_argument("--keep", action="store_true", help="write the figures to benchmarks/results/duplicates.json")
    args = parser.parse_args()
    figures = {folder.name: measure(folder, args.courses) for folder in args.folders}
    print(json.dumps(figures, indent=1))
    if args.keep:
        print(keep("duplicates", figures, "opencv-python-headless", "numpy"))


if __name__ == "__main__":
    main()
