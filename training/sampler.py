"""Videos of a trained model on disk, each with all that is needed to make it again and its measured M."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from flows.dis import PRESETS, dis_flow
from flows.intensity import magnitude, motion_intensity
from manifests.shards import whole
from stages.base import ClipError
from stages.crop import place
from stages.decode import Decoder
from stages.detection import Detection
from stages.face import Dlib, DlibParams
from stages.frames import FrameSpec
from training.captioner import Captioner
from training.checkpoint import digest
from training.components import SCRATCH
from training.data import as_tensor, face_warp, resized
from training.faces import cut_out
from training.metrics.control import PRESET
from training.model import set_scales
from training.pipeline import MotionCharacterPipeline, load_framework
from training.requests import Request


class Sampler:
    """A loaded checkpoint, a face detector, and the engine that is asked for missing actions."""

    def __init__(self, path: Path, device: str, detector: str | None, captioner: Captioner | None = None) -> None:
        """Raises ValueError when the checkpoint cannot be used or model files are missing."""
        framework, self.checkpoint = load_framework(path, device)
        self.pipeline = MotionCharacterPipeline.of(framework)
        self.config = framework.config
        self.spec = FrameSpec(**self.checkpoint.config()["frames"])
        self._faces: dict[Path, tuple[np.ndarray, Detection]] = {}
        self._references: dict[Path, tuple[Tensor, Tensor, Tensor]] = {}
        self.detector_name = detector or ("dlib" if self.config.base == SCRATCH else "insightface")
        self.detector = face_detector(self.detector_name, device)
        self.captioner = captioner or Captioner.of("kinematic", [], device)

    def write(self, request: Request, out: Path) -> Path:
        """Make the video and write mp4, GIF, PNG strip and JSON; returns the JSON. A finished one is not made again.

        Raises ValueError when the image cannot be read or does not show exactly one face.
        """
        name = request.name(by=f"{self.checkpoint.digest()} {self.detector_name} {self.captioner.name}")
        record = out / f"{name}.json"
        if record.exists():
            return record
        used = self.settings(request)
        frames = as_frames(self.make(request.model_copy(update={"action": used["action"]})))
        fps = self.fps()
        write_mp4(out / f"{name}.mp4", frames, fps)
        write_pictures(out / name, frames, float(fps))
        about = {
            "request": request.model_dump(mode="json", by_alias=True),
            "image_sha256": digest(request.image),
            "used": used,
            "measured_intensity": motion_intensity(magnitude(video_flow(frames, self.spec.size))),
            "measured_with": f"DIS, preset {PRESET}, at {self.spec.size} px",
            "fps": float(fps),
            "checkpoint": str(self.checkpoint.folder.resolve()),
            "checkpoint_sha256": self.checkpoint.digest(),
            "trained": self.checkpoint.config(),
            "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
        }
        with whole(record) as temporary:
            temporary.write_text(json.dumps(about, indent=1, sort_keys=True))
        return record

    def settings(self, request: Request) -> dict[str, Any]:
        """How the request is sampled: its own settings, else the config's; its action, else the captioner's."""
        config = self.config
        return {
            "action": self.action(request) if request.action is None else request.action,
            "detector": self.detector_name,
            "captioner": self.captioner.name if request.action is None else None,
            "guidance": request.guidance or config.guidance,
            "steps": request.steps or config.sample_steps,
            "lambda": config.lambda_ if request.lambda_ is None else request.lambda_,
            "alpha": config.alpha if request.alpha is None else request.alpha,
        }

    def action(self, request: Request) -> str:
        """A taken from P, "" where there is none in it; says which. Raises ValueError as `write` does."""
        frame, face = self.face(request.image)
        action = self.captioner.action(request.prompt, squared(frame, face)[0], request.image)
        engine = self.captioner.name.split()[0]
        what = f"action {action!r} taken from" if action else "no action, so an empty one: there is none in"
        tqdm.write(f"{request.image}: {what} the prompt {request.prompt!r} ({engine})", file=sys.stderr)
        return action

    def make(self, request: Request) -> Tensor:
        """The video (N, 3, S, S), 0..1. Raises ValueError as `write` does."""
        used = self.settings(request)
        set_scales(self.pipeline.unet, used["lambda"], used["alpha"])
        face, reference, warp = self.reference(request.image)
        return self.pipeline.animate(
            face,
            reference,
            warp,
            request.prompt,
            used["action"],
            request.intensity,
            frames=self.spec.count,
            seed=request.seed,
            guidance=used["guidance"],
            steps=int(used["steps"]),
            negative_prompt=request.negative_prompt,
        )

    def fps(self) -> Fraction:
        """Rate of the grid; with a stride it depends on the file, and most have 30 frames per second."""
        if self.spec.stride is not None:
            return Fraction(30, self.spec.stride)
        return Fraction(self.spec.fps).limit_denominator(1000)

    def reference(self, image: Path) -> tuple[Tensor, Tensor, Tensor]:
        """Face on plain ground (3, S, S), the square around it (3, S, S), its warp (2, 3), as in training.batch.Sample.

        Raises ValueError when the image cannot be read or does not show exactly one face.
        """
        if image not in self._references:
            self._references[image] = prepared(*self.face(image), self.config.size)
        return self._references[image]

    def face(self, image: Path) -> tuple[np.ndarray, Detection]:
        """The picture, uint8 RGB (h, w, 3), and the one face on it. Raises ValueError as `reference` does."""
        if image not in self._faces:
            frame = read_picture(image)
            found = self.detector.detect(frame)
            if len(found) != 1:
                raise ValueError(f"{image}: {len(found) or 'no'} faces found, exactly one is needed")
            self._faces[image] = frame, found[0]
        return self._faces[image]


def face_detector(name: str, device: str) -> Any:
    """An engine of the face stage, set up."""
    spec = FrameSpec.model_validate({})
    engine: Any
    if name == "dlib":
        engine = Dlib(DlibParams.model_validate({}), spec)
    else:
        from stages.insightface_face import InsightFace, InsightFaceParams

        engine = InsightFace(InsightFaceParams.model_validate({"recogniser": None}), spec)
    engine.setup(device)
    return engine


def read_picture(path: Path) -> np.ndarray:
    """A still as the pipeline sees it: uint8 RGB (h, w, 3), upright, shorter side 512. Raises ValueError."""
    spec = FrameSpec.model_validate({})
    with Decoder(60.0) as decoder:
        try:
            header = decoder.header(str(path), "image")
            return decoder.frames(str(path), "image", spec, header).images[0]
        except ClipError as error:
            raise ValueError(f"{path}: {error}") from error


def squared(frame: np.ndarray, face: Detection) -> tuple[np.ndarray, int, int]:
    """The square crop of uint8 RGB (h, w, 3) that holds the face, (s, s, 3), and its place x, y."""
    height, width = frame.shape[:2]
    side = min(height, width)
    x0, y0, x1, y1 = face.box
    x, y = place(width, side, x0, x1), place(height, side, y0, y1)
    return np.ascontiguousarray(frame[y : y + side, x : x + side]), x, y


def prepared(frame: np.ndarray, face: Detection, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs for a face on uint8 RGB (h, w, 3), through the square crop that holds it, at `size`."""
    cut, x, y = squared(frame, face)
    scale = size / len(cut)
    square = resized(cut[None], size)
    box = (np.array(face.box) - [x, y, x, y]) * scale
    landmarks = None
    if face.landmarks is not None:
        landmarks = ((np.array(face.landmarks).reshape(5, 2) - [x, y]) * scale)[None]
    return as_tensor(cut_out(square[0], box, size)[None])[0], as_tensor(square)[0], face_warp(box[None], landmarks)[0]


def as_frames(video: Tensor) -> np.ndarray:
    """(N, 3, S, S), 0..1 -> uint8 RGB (N, S, S, 3)."""
    return (video.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def video_flow(frames: np.ndarray, size: int) -> np.ndarray:
    """Flow as curation computes it by default, float32 (N-1, size, size, 2), on uint8 RGB frames (N, S, S, 3).

    size: side of the frame grid, to which they are scaled.
    """
    import cv2

    grid = np.stack([cv2.resize(f, (size, size), interpolation=cv2.INTER_CUBIC) for f in frames])
    return dis_flow(grid, PRESETS[PRESET])


@torch.no_grad()
def face_embedding(pipeline: MotionCharacterPipeline, frame: Tensor, warp: Tensor) -> np.ndarray:
    """phi, unit length, (d,), of a frame (3, S, S), -1..1, aligned by a warp (2, 3)."""
    return torch.nn.functional.normalize(pipeline.framework.arcface(frame[None], warp[None]))[0].numpy()


def write_mp4(path: Path, frames: np.ndarray, fps: Fraction) -> None:
    """H.264 of uint8 RGB frames (N, S, S, 3)."""
    import av

    with whole(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "16"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())


def write_pictures(stem: Path, frames: np.ndarray, fps: float) -> None:
    """`stem`.gif, looping, and `stem`.png, all frames side by side."""
    from PIL import Image

    pictures = [Image.fromarray(frame) for frame in frames]
    stem.parent.mkdir(parents=True, exist_ok=True)
    milliseconds = round(1000 / fps)
    pictures[0].save(f"{stem}.gif", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    Image.fromarray(np.concatenate(list(frames), axis=1)).save(f"{stem}.png")
