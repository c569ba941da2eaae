"""The paper's engines beside their bare networks, on data that lies on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage.data import astronaut

from benchmarks.minigpt4_files import ANSWER
from stages.base import Sample
from stages.caption_text import ASK_CAPTION
from stages.clip import Clip
from stages.clip_iqa import ClipIqa
from stages.easyocr_text import EasyOcr
from stages.embedding import OpenClip
from stages.frames import Frames, FrameSpec
from stages.insightface_face import InsightFace
from stages.minigpt4 import STOP, MiniGPT4
from stages.raft_motion import RaftMotion

ENGINES: dict[str, Any] = {
    "quality": ClipIqa,
    "text": EasyOcr,
    "face": InsightFace,
    "embedding": OpenClip,
    "motion": RaftMotion,
    "caption": MiniGPT4,
}


@dataclass
class Bench:
    """An engine that is set up, and its network's work for a call's clips on data that lies on the device.

    read_bytes: what the language model's weights take, read once for each of `tokens`.
    """

    engine: Any
    bare: Callable[[], Any]
    read_bytes: int = 0
    tokens: int = 0


def samples(count: int, spec: FrameSpec) -> list[Sample]:
    """Clips of 16:9 noise that moves, with a face in the middle: the detector is a real one, and without a face the
    recogniser would have nothing to do."""
    rng = np.random.default_rng(0)
    h, w = spec.size, spec.size * 16 // 9 // 8 * 8
    wide = np.kron(rng.integers(0, 256, (h // 8 + 8, w // 8 + 16, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    images = np.stack([wide[2 * i : 2 * i + h, 3 * i : 3 * i + w] for i in range(spec.count)])
    top, left, side = h // 4, (w - h) // 2, h / 4
    face = Image.fromarray(astronaut()[:224, 112:336]).resize((h // 2, h // 2))  # the head takes half of its height
    images[:, top : top + h // 2, left + top : left + top + h // 2] = np.asarray(face)
    box = [w / 2 - side / 2, h / 2 - side / 2, w / 2 + side / 2, h / 2 + side / 2]
    columns = {
        "crop": [float(left), 0.0, float(left + h), float(h)],
        "face_frames": list(range(spec.count)),
        "frame_boxes": [box] * spec.count,
        "face_boxes": [[box[0] - left, box[1], box[2] - left, box[3]]] * spec.count,
    }
    frames = Frames(images, np.arange(spec.count) / 4, (w, h), "pyav")
    return [Sample(Clip("s", f"{i}.mp4", "video", "1"), columns, frames) for i in range(count)]


def build(name: str, params: dict[str, Any], spec: FrameSpec, device: str, clips: int) -> Bench:
    """The engine on the device, and its network's work for so many clips."""
    kind = ENGINES[name]
    engine = kind(kind.Params.model_validate({k: v for k, v in params.items() if k != "engine"}), spec)
    engine.setup(device)
    h, w = samples(1, spec)[0].images().shape[1:3]

    def picture(count: int, h: int, w: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.rand(count, 3, h, w, device=device, dtype=dtype).to(memory_format=torch.channels_last)

    if name == "quality":
        one = picture(clips, h, w, torch.float32 if device == "cpu" else torch.float16)
        return Bench(engine, lambda: engine.model(one, pos_embedding=False))
    if name == "text":
        three = picture(3 * clips, -(-h // 32) * 32, -(-w // 32) * 32)  # EasyOCR pads to multiples of 32
        return Bench(engine, lambda: engine.reader.detector(three))
    if name == "face":
        return Bench(engine, lambda: bare_faces(engine, clips, spec.count))
    if name == "embedding":
        two = picture(2 * clips, 224, 224, engine.dtype)
        return Bench(engine, lambda: engine.visual(two))
    if name == "motion":
        frames = (picture(clips * spec.count, spec.size, spec.size) * 255).byte()
        first = np.array([i for i in range(len(frames)) if (i + 1) % spec.count])  # a clip's last frame begins no pair

        def raft() -> None:
            with engine.raft._precision():
                for i in range(0, len(first), engine.raft.max_pairs):
                    engine.raft._pairs(frames, first[i : i + engine.raft.max_pairs])

        return Bench(engine, raft)
    return bare_caption(engine, clips, device, picture)


def bare_faces(engine: Any, clips: int, frames: int) -> None:
    """The detector on each frame and the recogniser on one face of each, through onnxruntime alone."""
    detector, recogniser = engine.detector, engine.recogniser
    picture = np.zeros((1, 3, *detector.input_size[::-1]), np.float32)
    faces = np.zeros((frames, 3, *recogniser.input_size), np.float32)
    for _ in range(clips):
        for _ in range(frames):
            detector.session.run(detector.output_names, {detector.input_name: picture})
        recogniser.session.run(recogniser.output_names, {recogniser.input_name: faces})


def bare_caption(engine: Any, clips: int, device: str, picture: Callable[..., torch.Tensor]) -> Bench:
    """The image side on one picture a clip, and two answers of `ANSWER`'s length to prompts as long as the engine's."""
    model, language_model = engine._model, engine._model.language_model
    side = model.config.vision_config.image_size
    pictures = picture(clips, side, side, model.language_projection.weight.dtype)
    tokens = len(engine._tokenizer(ANSWER + STOP, add_special_tokens=False).input_ids)
    before, after = engine.prompt("This is a frame of a video of a person. " + ASK_CAPTION)
    prompt = torch.tensor([before + after]).expand(clips, -1).to(device)

    def bare() -> None:
        seen = model.get_image_features(pictures).pooler_output
        told = torch.cat([language_model.get_input_embeddings()(prompt), seen.to(language_model.dtype)], 1)
        mask = torch.ones(told.shape[:2], dtype=torch.long, device=device)
        for _ in range(2):
            language_model.generate(
                inputs_embeds=told, attention_mask=mask, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens,
                pad_token_id=0,
            )  # fmt: skip

    size = sum(p.numel() * p.element_size() for p in language_model.parameters())
    return Bench(engine, bare, size, 2 * tokens)
