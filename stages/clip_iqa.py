"""Quality by CLIP-IQA (Wang, Chan and Loy 2023, arXiv 2207.12396), the paper's engine, as pyiqa computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from stages import base, weights
from stages.base import ClipError, Measured, Sample
from stages.frames import FrameSpec

# Antonym pairs whose probabilities are averaged; the first of a pair is the good one. pyiqa's ensemble: the paper
# itself compares "Good photo." with "Bad photo." alone.
PROMPTS = (
    ("Good image", "bad image"),
    ("Sharp image", "blurry image"),
    ("sharp edges", "blurry edges"),
    ("High resolution image", "low resolution image"),
    ("Noise-free image", "noisy image"),
)


class ClipIqaParams(base.Params):
    """position: which frame, from 0 (the first) to 1 (the last).

    precision: float16 needs about half the time and memory on a GPU; auto takes it there and float32 on a CPU.
    """

    position: float = Field(0.5, ge=0, le=1)
    precision: Literal["auto", "float32", "float16"] = "auto"


class ClipIqa:
    """CLIP-IQA with CLIP's ResNet-50 on one whole frame, not resized: 0..1, larger is better."""

    Params: type[base.Params] = ClipIqaParams

    def __init__(self, params: ClipIqaParams, spec: FrameSpec) -> None:
        self.params = params
        self.device = "cpu"
        self.half = False
        self.model: Any = None
        self.text: Any = None

    def weights(self) -> tuple[str, ...]:
        """The model files that it needs."""
        return ("clip-rn50",)

    def version(self) -> str:
        """Versions of pyiqa and torch, and the hash of the weights."""
        return weights.version(self.weights(), "pyiqa", "torch")

    def setup(self, device: str) -> None:
        """Loads CLIP and encodes the prompts, in float32, once."""
        path = weights.require(self.weights())["clip-rn50"]
        import torch
        from pyiqa.archs.clip_imports import clip
        from pyiqa.archs.clip_model import build_model, convert_weights

        model = build_model(weights.load_state_dict(path)).float().eval().requires_grad_(False).to(device)
        tokens = clip.tokenize([prompt for pair in PROMPTS for prompt in pair]).to(device)
        with torch.inference_mode():
            text = model.encode_text(tokens)
            self.text = model.logit_scale.exp() * text / text.norm(dim=-1, keepdim=True)
        self.half = self.params.precision == "float16" or (self.params.precision == "auto" and device != "cpu")
        if self.half:
            convert_weights(model)
        self.model = model.visual.to(memory_format=torch.channels_last)
        self.device = device

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """quality_score and quality_frame; frames of one size go through the network together."""
        frames = [round(self.params.position * (len(sample.images()) - 1)) for sample in batch]
        images = [sample.images()[frame] for sample, frame in zip(batch, frames, strict=True)]
        scores = np.zeros(len(batch))
        for shape in dict.fromkeys(image.shape for image in images):
            same = [i for i, image in enumerate(images) if image.shape == shape]
            scores[same] = self._score(np.stack([images[i] for i in same]))
        return [
            Measured({"quality_score": float(score), "quality_frame": frame})
            for score, frame in zip(scores, frames, strict=True)
        ]

    def _score(self, images: np.ndarray) -> np.ndarray:
        """Scores (b,) of uint8 RGB images (b, h, w, 3)."""
        import torch
        from pyiqa.archs.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

        with torch.inference_mode():
            x = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float() / 255
            mean = x.new_tensor(OPENAI_CLIP_MEAN).view(1, 3, 1, 1)
            std = x.new_tensor(OPENAI_CLIP_STD).view(1, 3, 1, 1)
            x = ((x - mean) / std).to(torch.float16 if self.half else torch.float32)
            # without position embeddings, so that the picture may have any size
            features = self.model(x.contiguous(memory_format=torch.channels_last), pos_embedding=False).float()
            logits = features / features.norm(dim=-1, keepdim=True) @ self.text.t()
            good = logits.reshape(len(images), len(PROMPTS), 2).softmax(dim=-1)[..., 0]
            return good.mean(dim=1).cpu().numpy()
