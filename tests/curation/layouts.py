"""The sources' published layouts in miniature, made from real clips and stills."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import av
import PIL.Image

VIDEO = "M2Ohb0FAaJU"


def entry(start: float = 81.62, end: float = 86.17, **changes: Any) -> dict[str, Any]:
    """An entry of a CelebV index, as published."""
    made: dict[str, Any] = {
        "ytb_id": VIDEO,
        "duration": {"start_sec": start, "end_sec": end},
        "bbox": {"top": 0.0, "bottom": 0.8815, "left": 0.1964, "right": 0.6922},
        "version": "v0.1",
    }
    return made | changes


def celebv_hq(root: Path, clips: dict[str, dict[str, Any]], files: dict[str, Path], folder: str = "processed") -> Path:
    """celebvhq_info.json with `clips`, and `files` by name in the folder."""
    meta = {"appearance_mapping": ["Blurry", "Male"], "action_mapping": ["blow", "chew"]}
    attributes = {"appearance": [0, 1], "action": [0, 0], "emotion": {"sep_flag": False, "labels": "neutral"}}
    clips = {key: value | {"attributes": attributes} for key, value in clips.items()}
    (root / folder).mkdir(parents=True)
    (root / "celebvhq_info.json").write_text(json.dumps({"meta_info": meta, "clips": clips}, indent=1))
    for name, file in files.items():
        shutil.copy(file, root / folder / name)
    return root


def celebv_text(root: Path, keys: list[str], files: dict[str, Path]) -> Path:
    """celebvtext_info.json as downloaded, clips at its top level and keys ending in .mp4, and texts."""
    (root / "processed").mkdir(parents=True)
    clips = {f"{key}.mp4": entry(meta_video_names=key, version="v0.11") for key in keys}
    (root / "celebvtext_info.json").write_text(json.dumps(clips))
    for attribute in (
        "action_dur",
        "emotion",
        "face40_details_new",
        "light_color_temp",
        "light_dir",
        "light_intensity",
    ):
        folder = root / "texts" / attribute
        folder.mkdir(parents=True)
        for key in keys:
            (folder / f"{key}.txt").write_text(f"{attribute} one.\n\n{attribute} two, at length. \n")
    for name, file in files.items():
        shutil.copy(file, root / "processed" / name)
    return root


def vfhq_meta(root: Path, clip: str, fps: float = 25.0, crop: str = "100 0 500 400", size: str = "1280x720") -> None:
    """A meta file, as published."""
    (root / "meta_info").mkdir(parents=True, exist_ok=True)
    width, height = size.split("x")
    lines = [f"CLIP: {clip}", f"H: {height}", f"W: {width}", f"FPS: {fps}", f"CROP: {crop}", "LANDMARK: 1 2 3"]
    (root / "meta_info" / f"{clip}.txt").write_text("\n".join(lines) + "\n")


def write_frames(folder: Path, video: Path, count: int, size: tuple[int, int] | None = None) -> None:
    """The first frames of a video as 00000000.png, 00000001.png, ..."""
    folder.mkdir(parents=True)
    with av.open(str(video)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index == count:
                break
            picture = frame.to_image()
            (picture.resize(size) if size else picture).save(folder / f"{index:08d}.png")


def aahq(root: Path, images: dict[str, Path | None]) -> Path:
    """AAHQ-dataset.json and aligned images; None for one that could not be downloaded."""
    (root / "aligned").mkdir(parents=True)
    index = {
        name: {
            "image_url": f"https://cdna.artstation.com/{name}",
            "raw_name": f"raw_{name}",
            "landmarks": {"eye_left": [1.0, 2.0], "eye_right": [3.0, 2.0]},
        }
        for name in images
    }
    (root / "AAHQ-dataset.json").write_text(json.dumps(index))
    for name, file in images.items():
        if file is not None:
            PIL.Image.open(file).convert("RGB").resize((512, 512)).save(root / "aligned" / name)
    return root
