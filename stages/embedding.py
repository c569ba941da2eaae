"""Image embeddings of the face and of the whole frame, for identity, search and near-duplicates.

By CLIP's image encoder (Radford et al. 2021, arXiv 2103.00020) through open_clip; the engine `none` gives null.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from manifests.schema import fields
from stages import base, weights
from stages.base import ClipError, Measured, Needs, Sample, Stage
from stages.frames import FrameSpec

MARGIN = 0.25  # of the box's longer side, kept around it on each side: hair and chin belong to a face's looks


class NoEmbedding:
    """Measures nothing, and needs nothing for it."""

    needs: Needs = "columns"
    reads: tuple[str, ...] = ()
    Params: type[base.Params] = base.Params

    def __init__(self, params: base.Params, spec: FrameSpec) -> None: ...

    def version(self) -> str:
        """Nothing that it depends on can change."""
        return "1"

    def setup(self, device: str) -> None:
        """There is nothing to load."""

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """Null for every clip."""
        return [Measured({"image_embedding": None, "frame_embedding": None}) for _ in batch]


class OpenClipParams(base.Params):
    """model: one of OpenAI's; 768 numbers for ViT-L-14, 512 for ViT-B-32. precision: as in the quality stage."""

    model: Literal["ViT-L-14", "ViT-B-32"] = "ViT-L-14"
    precision: Literal["auto", "float32", "float16"] = "auto"


class OpenClip:
    """open_clip's image embedding, scaled to unit length, so that a dot product is the cosine similarity.

    The face is cut out of the middle one of the frames on which the face stage found it, with a margin; the frame is
    the clip's middle one, of which CLIP's preprocessing sees the central square.
    """

    Params: type[base.Params] = OpenClipParams

    def __init__(self, params: OpenClipParams, spec: FrameSpec) -> None:
        self.params = params
        self.device = "cpu"
        self.visual: Any = None
        self.prepare: Any = None
        self.dtype: Any = None

    def weights(self) -> tuple[str, ...]:
        """The model files that it needs."""
        return (f"clip-{self.params.model.lower()}",)

    def version(self) -> str:
        """Versions of open_clip and torch, and the hash of the weights."""
        return weights.version(self.weights(), "open_clip_torch", "torch")

    def setup(self, device: str) -> None:
        """Loads the model; only its image encoder is kept."""
        (path,) = weights.require(self.weights()).values()
        import torch
        from open_clip import image_transform
        from open_clip.model import build_model_from_openai_state_dict

        half = self.params.precision == "float16" or (self.params.precision == "auto" and device != "cpu")
        self.dtype = torch.float16 if half else torch.float32
        model = build_model_from_openai_state_dict(weights.load_state_dict(path))  # float16, as published
        visual = model.visual if half else model.visual.float()
        self.visual = visual.eval().requires_grad_(False).to(device)
        self.prepare = image_transform(visual.image_size, is_train=False)
        self.device = device

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """image_embedding, null for a clip without a face, and frame_embedding."""
        pictures = []
        faces = [face_crop(sample) for sample in batch]
        for sample, face in zip(batch, faces, strict=True):
            pictures.append(sample.images()[len(sample.images()) // 2])
            pictures.extend([] if face is None else [face])
        vectors = iter(self._embed(pictures))
        measured: list[Measured | ClipError] = []
        for face in faces:
            frame = next(vectors).tolist()
            image = None if face is None else next(vectors).tolist()
            measured.append(Measured({"image_embedding": image, "frame_embedding": frame}))
        return measured

    def _embed(self, pictures: list[np.ndarray]) -> np.ndarray:
        """float32 (n, width) of unit length, of uint8 RGB pictures of any sizes."""
        import torch
        from PIL import Image

        if not pictures:
            return np.zeros((0, 0), np.float32)
        x = torch.stack([self.prepare(Image.fromarray(picture)) for picture in pictures])
        with torch.inference_mode():
            features = self.visual(x.to(self.device, self.dtype)).float()
            return (features / features.norm(dim=-1, keepdim=True)).cpu().numpy()


def face_crop(sample: Sample) -> np.ndarray | None:
    """The face, uint8 RGB (h, w, 3), on the middle one of the frames that have one; None where none has."""
    frames = sample.columns["face_frames"]
    if not frames:
        return None
    middle = len(frames) // 2
    image = sample.images()[frames[middle]]
    x0, y0, x1, y1 = (float(v) for v in sample.columns["frame_boxes"][middle])
    half = (0.5 + MARGIN) * max(x1 - x0, y1 - y0)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    h, w = image.shape[:2]
    left, right = round(np.clip(x - half, 0, w - 1)), round(np.clip(x + half, 1, w))
    top, bottom = round(np.clip(y - half, 0, h - 1)), round(np.clip(y + half, 1, h))
    return image[top : max(bottom, top + 1), left : max(right, left + 1)]


STAGE = Stage(
    name="embedding",
    needs="frames",
    fields=fields("image_embedding", "frame_embedding"),
    engines={"none": NoEmbedding, "open_clip": OpenClip},
    reads=("face",),
)
