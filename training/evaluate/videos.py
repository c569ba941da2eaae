"""The generated videos of a folder, and what each was asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.metrics.base import Video

LIST = "videos.jsonl"


class Entry(BaseModel):
    """A line of videos.jsonl.

    video and image: paths relative to the file, or absolute. prompt: P, which is scored. said: the whole text that the
    model was given, where it differs. intensity: the M asked for, None where there is none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    video: Path
    image: Path
    prompt: str = ""
    action: str = ""
    intensity: float | None = Field(None, ge=0, le=20)
    seed: int = 0
    said: str | None = None


@dataclass(frozen=True)
class Item:
    """One video to be scored. name: its path below the folder, without suffix."""

    name: str
    path: Path
    image: Path
    prompt: str
    action: str
    intensity: float | None
    grid_size: int

    def stamp(self) -> list[int]:
        """Changes when the video or the picture does: sizes and modification times."""
        return [value for path in (self.path, self.image) for value in (path.stat().st_size, path.stat().st_mtime_ns)]

    def load(self) -> Video:
        """Raises ValueError when the video or the picture cannot be read."""
        frames, fps = read_video(self.path)
        return Video(frames, fps, read_picture(self.image), self.prompt, self.intensity, self.grid_size)


def read_folder(folder: Path) -> list[Item]:
    """The videos that the folder's videos.jsonl lists, else those of training.sample's records in it, sorted by name.

    Raises ValueError that names the first file or line that is wrong, or a missing video or picture.
    """
    items = _listed(folder) if (folder / LIST).is_file() else _recorded(folder)
    if not items:
        raise ValueError(f"{folder}: no {LIST}, and no records of training.sample (NAME.json beside NAME.mp4)")
    for item in items:
        for what, path in (("video", item.path), ("picture", item.image)):
            if not path.is_file():
                raise ValueError(f"{item.name}: its {what} {path} does not exist")
    return sorted(items, key=lambda item: item.name)


def read_list(path: Path) -> list[Entry]:
    """The lines of a videos.jsonl. Raises ValueError that names the line."""
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                entries.append(Entry.model_validate_json(line))
            except ValidationError as error:
                first = error.errors()[0]
                key = ".".join(map(str, first["loc"])) or "line"
                raise ValueError(f"{path}:{number}: {key}: {first['msg']}") from None
    return entries


def _listed(folder: Path) -> list[Item]:
    path = folder / LIST
    return [
        Item(
            entry.video.with_suffix("").as_posix(),
            folder / entry.video,
            folder / entry.image,
            entry.prompt,
            entry.action,
            entry.intensity,
            512,
        )
        for entry in read_list(path)
    ]


def _recorded(folder: Path) -> list[Item]:
    if not folder.is_dir():
        raise ValueError(f"{folder}: is not a folder")
    items = []
    for path in sorted(folder.glob("*.json")):
        about = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(about, dict) or "request" not in about:
            continue
        asked = about["request"]
        items.append(
            Item(
                path.stem,
                path.with_suffix(".mp4"),
                Path(asked["image"]),
                asked["prompt"],
                about["used"]["action"] if asked["action"] is None else asked["action"],
                asked["intensity"],
                about["trained"]["frames"]["size"],
            )
        )
    return items


def read_video(path: Path) -> tuple[np.ndarray, float]:
    """All frames of a video or an animated picture, uint8 RGB (N, h, w, 3), and its frames per second."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
            rate = stream.average_rate or stream.guessed_rate
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(f"{path}: cannot be read as a video: {error}") from error
    if not frames or not rate:
        raise ValueError(f"{path}: holds no frames")
    return np.stack(frames), float(rate)


def read_picture(path: Path) -> np.ndarray:
    """uint8 RGB (h, w, 3), upright, of its own size."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as a picture: {error}") from error
