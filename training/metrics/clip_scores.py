"""CLIP-I and CLIP-T: cosines of CLIP's embeddings (Radford et al. 2021, arXiv 2103.00020) through open_clip."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from stages import weights
from training.metrics.base import Score, Video

MODEL = "clip-vit-l-14"
_WITH = (
    "by OpenAI's CLIP ViT-L/14 in float32 (the model of FastComposer's evaluation; ViT-B/32 would give other numbers), "
    "with CLIP's preprocessing: shorter side to 224, central square"
)


class ClipI:
    """How alike the frames and the reference picture are."""

    name = "clip_i"
    title = "CLIP-I"
    definition = f"mean over all frames of the cosine between the embeddings of frame and reference picture, {_WITH}"
    weights: tuple[str, ...] = (MODEL,)
    packages: tuple[str, ...] = ("torch", "open_clip_torch")

    def setup(self, device: str) -> None:
        """Loads CLIP, once for both metrics."""
        self.clip = clip(device)

    def measure(self, video: Video) -> Score:
        """details: the cosine of each frame."""
        return mean_cosine(self.clip.pictures(video.frames), self.clip.pictures(video.reference[None]))


class ClipT:
    """How well the frames fit the prompt."""

    name = "clip_t"
    title = "CLIP-T"
    definition = (
        f"mean over all frames of the cosine between the embeddings of frame and prompt P, {_WITH}; the prompt is cut "
        "after 77 tokens"
    )
    weights: tuple[str, ...] = (MODEL,)
    packages: tuple[str, ...] = ("torch", "open_clip_torch")

    def setup(self, device: str) -> None:
        """Loads CLIP, once for both metrics."""
        self.clip = clip(device)

    def measure(self, video: Video) -> Score:
        """details: the cosine of each frame. Raises ValueError for a video without a prompt."""
        if not video.prompt.strip():
            raise ValueError("has no prompt to compare with")
        return mean_cosine(self.clip.pictures(video.frames), self.clip.text(video.prompt))


def mean_cosine(frames: np.ndarray, other: np.ndarray) -> Score:
    """frames (n, d) and other (1, d), of unit length."""
    cosines = frames @ other[0]
    return Score(float(cosines.mean()), {"cosines": cosines.tolist()})


class Clip:
    """Unit embeddings of pictures and texts."""

    def __init__(self, device: str) -> None:
        (path,) = weights.require((MODEL,)).values()
        from open_clip import SimpleTokenizer, image_transform
        from open_clip.model import build_model_from_openai_state_dict

        model: Any = build_model_from_openai_state_dict(weights.load_state_dict(path)).float()
        self.model = model.eval().requires_grad_(False).to(device)
        self.prepare = image_transform(model.visual.image_size, is_train=False)
        self.tokenize = SimpleTokenizer(context_length=model.context_length)
        self.device = device

    def pictures(self, frames: np.ndarray) -> np.ndarray:
        """uint8 RGB (n, h, w, 3) -> float32 (n, d)."""
        import torch
        from PIL import Image

        x = torch.stack([self.prepare(Image.fromarray(frame)) for frame in frames])
        with torch.inference_mode():
            return self.model.encode_image(x.to(self.device), normalize=True).cpu().numpy()

    def text(self, text: str) -> np.ndarray:
        """float32 (1, d)."""
        import torch

        with torch.inference_mode():
            return self.model.encode_text(self.tokenize([text]).to(self.device), normalize=True).cpu().numpy()


@lru_cache(maxsize=1)
def clip(device: str) -> Clip:
    """The model on this device."""
    return Clip(device)
