"""Render short portrait videos of a real face under known motion, and their faulty twins.

    python examples/portraits.py OUT

writes two dozen files and `truth.json`: for each file the expected verdict, and for the good ones the true motion
intensity M and the kind of action.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # where run as a file, only this folder is on the path

from examples.motions import MOTIONS
from examples.people import astronaut
from examples.rendering import render
from examples.video import write_video
from flows.intensity import magnitude, motion_intensity

ENCODING = {"preset": "veryfast", "crf": "18"}

# file: motion, speed. Spread over M from 0 to 20, and over all kinds of motion.
GOOD: dict[str, tuple[str, float]] = {
    "still.mp4": ("still", 0),
    "talk.mp4": ("talk", 6),
    "shake.mp4": ("shake", 4),
    "nod.mp4": ("nod", 4),
    "tilt_right.mp4": ("tilt_right", 1.5),
    "tilt_left.mp4": ("tilt_left", 1.2),
    "farther.mp4": ("farther", 2),
    "nearer.mp4": ("nearer", 4),
    "left_1.mp4": ("left", 1),
    "up_3.mp4": ("up", 3),
    "left_6.mp4": ("left", 6),
    "down_9.mp4": ("down", 9),
    "right_12.mp4": ("right", 12),
    "right_15.mp4": ("right", 15),
    "pan_right_8.mp4": ("pan_right", 8),
}

# file: what must become of it, and why.
FAULTY: dict[str, tuple[str, str | None]] = {
    "too_small.mp4": ("rejected", "resolution"),
    "too_short.mp4": ("rejected", "too_short"),
    "blurred.mp4": ("rejected", "quality"),
    "burnt_in_caption.mp4": ("rejected", "text_overlay"),
    "no_face.mp4": ("rejected", "no_face"),
    "two_faces.mp4": ("rejected", "multiple_faces"),
    "truncated.mp4": ("failed", None),
    "empty.mp4": ("failed", None),
    "text_file.mp4": ("failed", None),
}


def _burn_in(frame: np.ndarray) -> np.ndarray:
    """The frame with two lines of subtitle."""
    import cv2

    frame = frame.copy()
    for line, y in (("Subscribe to our channel", 440), ("for more from space", 485)):
        (width, _), _ = cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, 1.1, 2)
        for colour, thickness in (((0, 0, 0), 7), ((255, 255, 255), 2)):
            at = ((frame.shape[1] - width) // 2, y)
            cv2.putText(frame, line, at, cv2.FONT_HERSHEY_SIMPLEX, 1.1, colour, thickness, cv2.LINE_AA)
    return frame


def _beside_mirrored(frame: np.ndarray) -> np.ndarray:
    """The frame and its mirror image side by side: two people."""
    return np.hstack([frame, frame[:, ::-1]])


def write_faulty(path: Path) -> None:
    """Write the file of `FAULTY` that `path` names."""
    import cv2
    from skimage import data

    if path.name == "empty.mp4":
        path.write_bytes(b"")
    elif path.name == "text_file.mp4":
        path.write_text("This is a text file, whatever its name says.\n")
    elif path.name == "truncated.mp4":
        write_video(path, render("left", 4).frames(), 25, options=ENCODING)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    elif path.name == "no_face.mp4":
        write_video(path, [cv2.resize(data.coffee(), (768, 512), interpolation=cv2.INTER_CUBIC)] * 110, 25)
    else:
        clip = {
            "too_small.mp4": render("right", 5, size=(384, 384)),
            "too_short.mp4": render("left", 5, seconds=2),
            "two_faces.mp4": render("talk", 4),
        }.get(path.name, render("right", 4))
        change: Callable[[np.ndarray], np.ndarray] = {
            "blurred.mp4": lambda frame: cv2.GaussianBlur(frame, (0, 0), 5),
            "burnt_in_caption.mp4": _burn_in,
            "two_faces.mp4": _beside_mirrored,
        }.get(path.name, lambda frame: frame)
        write_video(path, map(change, clip.frames()), clip.fps, options=ENCODING)


def write_clip(path: Path) -> dict[str, Any]:
    """Write the file of `GOOD` or `FAULTY` that `path` names; return what is true of it."""
    if path.name in FAULTY:
        write_faulty(path)
        status, reason = FAULTY[path.name]
        return {"status": status, "reason": reason}
    motion, speed = GOOD[path.name]
    clip = render(motion, speed)
    write_video(path, clip.frames(), clip.fps, options=ENCODING)
    return {
        "status": "kept",
        "reason": None,
        "motion_intensity": round(motion_intensity(magnitude(clip.true_flows())), 4),
        "action": motion if clip.one_way or MOTIONS[motion].period_s else f"{motion}_and_back",
    }


def write_all(out: Path) -> dict[str, dict[str, Any]]:
    """Write every clip and `truth.json` into the folder `out`; return the truth by file name."""
    out.mkdir(parents=True, exist_ok=True)
    names = [*GOOD, *FAULTY]
    astronaut()  # once, before the threads want it
    with ThreadPoolExecutor() as pool:
        truth = dict(zip(names, pool.map(lambda name: write_clip(out / name), names), strict=True))
    (out / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")
    return truth


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description="Render portrait videos under known motion, and faulty ones.")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    out = parser.parse_args().out
    truth = write_all(out)
    print(f"{len(truth)} files in {out}, what is true of them in {out / 'truth.json'}")


if __name__ == "__main__":
    main()
