"""Captions from MiniGPT-4 (Zhu et al., arXiv 2304.10592), the paper's captioner, put together from transformers' parts.

MiniGPT-4 is BLIP-2's frozen image side (EVA ViT-g without its last layer, Q-Former with 32 queries) and one trained
linear layer into Vicuna's embedding space: a `Blip2ForConditionalGeneration` with a Llama as its language model, whose
`language_projection` is MiniGPT-4's `llama_proj`. Weights are read in the layouts in which they are published:

- EVA ViT-g and Q-Former as LAVIS's two .pth files, or as a folder of Hugging Face's BLIP-2 (blip2-flan-t5-xxl, from
  which MiniGPT-4 was trained; the other BLIP-2 models have other Q-Formers);
- MiniGPT-4's checkpoint; Vicuna-7B v0 as a Hugging Face folder, with 32000 or 32001 tokens.

MiniGPT-4 reads one image, so one picture is shown: the middle frame, which is what it was trained on, or a contact
sheet, which lets it see motion but is nothing it has seen in training. Decoding is greedy, so that a clip has the same
caption each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from stages import weights
from stages.base import ClipError, Measured, Needs, Params, Sample
from stages.caption_text import TEXT_VERSION, AskParams, View, dialogue, in_step, pictures, scene
from stages.frames import FrameSpec
from stages.minigpt4_weights import Model, blip2_files, config_of, from_lavis, from_minigpt4, load, read, read_blip2

if TYPE_CHECKING:
    import torch

# The conversation of MiniGPT-4's Vicuna v0 (minigpt4/conversation/conversation.py there). The two parts around the
# image's 32 vectors are tokenised one by one.
BEFORE_IMAGE = (
    "Give the following image: <Img>ImageContent</Img>. You will be able to see the image once I provide it to you. "
    "Please answer my questions.###Human: <Img>"
)
AFTER_IMAGE = "</Img> {question}###Assistant:"
# Vicuna writes it as one token (835) or as two (2277, 29937); matching the text finds both.
STOP = "###"

# The pixel statistics of CLIP, with which BLIP-2 was trained (LAVIS, blip_processors.py).
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class MiniGPT4Params(AskParams):
    """view: "middle" or "sheet". blip2: a folder of Hugging Face's blip2-flan-t5-xxl, in place of LAVIS's two files.
    precision: auto takes float16 on a GPU and float32, about 31 GB, on a CPU; with bfloat16 it is 16 GB there.
    """

    operational: ClassVar[frozenset[str]] = frozenset({"blip2"})

    view: View = "middle"
    blip2: str | None = None
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    max_new_tokens: int = Field(160, ge=8, le=1024)

    @field_validator("view")
    @classmethod
    def _one_picture(cls, view: View) -> View:
        if view not in ("middle", "sheet"):
            raise ValueError("expected middle or sheet: MiniGPT-4 reads one picture")
        return view


class MiniGPT4:
    """The engine."""

    Params: type[Params] = MiniGPT4Params
    needs: ClassVar[Needs] = "grid"
    reads: ClassVar[tuple[str, ...]] = ("crop",)

    def __init__(self, params: MiniGPT4Params, spec: FrameSpec) -> None:
        self._params = params
        self._model: Model = None
        self._tokenizer: Any = None

    def weights(self) -> tuple[str, ...]:
        """Names in the table of model files."""
        image_side = () if self._params.blip2 else ("eva-vit-g", "blip2-qformer")
        return (*image_side, "minigpt4-7b", "vicuna-7b")

    def version(self) -> str:
        """Versions of prompts and libraries, hashes of the weights."""
        parts = [TEXT_VERSION, *(f"{name} {version(name)}" for name in ("transformers", "torch"))]
        if self._params.blip2:
            files = blip2_files(Path(self._params.blip2))
            parts += [f"{file.name}={weights.digest(file)[:16]}" for file in files]
        return ", ".join([*parts, weights.version(self.weights())])

    def setup(self, device: str) -> None:
        """Load the weights. Raises ValueError for files that are missing or not of the published layout."""
        import torch
        from transformers import AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        files = weights.require(self.weights())
        vicuna = files["vicuna-7b"]
        blip2 = Path(self._params.blip2) if self._params.blip2 else None
        config = config_of(vicuna, blip2)
        if blip2 is not None:
            image_side = read_blip2(blip2)
        else:
            layers = config.vision_config.num_hidden_layers
            image_side = from_lavis(read(files["eva-vit-g"]), read(files["blip2-qformer"]), layers)
        image_side |= from_minigpt4(read(files["minigpt4-7b"]))
        auto = "float32" if device == "cpu" else "float16"
        dtype = getattr(torch, auto if self._params.precision == "auto" else self._params.precision)
        self._model = load(config, image_side, vicuna, dtype).to(device)
        self._tokenizer = AutoTokenizer.from_pretrained(vicuna, local_files_only=True)
        if self._tokenizer.bos_token_id is None:
            raise ValueError(f"{vicuna}: its tokenizer has no bos_token; Vicuna's is <s>")

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """`caption` and `action` of each sample, or a ClipError where the answers were of no use."""
        import torch

        grids = [sample.grid() for sample in batch]
        with torch.inference_mode():
            seen = self._see([pictures(grid, self._params)[0] for grid in grids])
            talks = [
                dialogue(scene(grid, self._params), self._params.retries, sample.columns.get("caption"))
                for sample, grid in zip(batch, grids, strict=True)
            ]
            return in_step(talks, lambda questions: self._answer(seen, questions))

    def _see(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """The language model's view of images, uint8 RGB (h, w, 3) each: (len(images), queries, width)."""
        import torch

        size = self._model.config.vision_config.image_size
        pixels = torch.stack([to_pixels(image, size) for image in images])
        projection = self._model.language_projection.weight
        return self._model.get_image_features(pixels.to(projection)).pooler_output

    def prompt(self, question: str) -> tuple[list[int], list[int]]:
        """Token ids before and after the image: each part by itself, the beginning-of-sequence token once."""
        before = self._tokenizer(BEFORE_IMAGE, add_special_tokens=False).input_ids
        after = self._tokenizer(AFTER_IMAGE.format(question=question), add_special_tokens=False).input_ids
        return [self._tokenizer.bos_token_id, *before], after

    def _answer(self, seen: torch.Tensor, questions: Sequence[tuple[int, str]]) -> list[str]:
        """Greedy answers to questions about images, given as (row of `seen`, question)."""
        import torch
        from transformers import GenerationConfig

        language_model = self._model.language_model
        embed = language_model.get_input_embeddings()
        rows = []
        for image, question in questions:
            before, after = (embed(torch.tensor(ids, device=seen.device)) for ids in self.prompt(question))
            rows.append(torch.cat([before, seen[image].to(before), after]))
        longest = max(len(row) for row in rows)
        # Padding goes to the left, where the mask hides it: every row's last position is the one to continue from.
        padded = torch.stack([torch.nn.functional.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=seen.device)
        greedy = GenerationConfig(
            do_sample=False,
            max_new_tokens=self._params.max_new_tokens,
            stop_strings=[STOP],
            eos_token_id=self._tokenizer.eos_token_id,
            pad_token_id=self._tokenizer.eos_token_id,
        )
        answers = language_model.generate(
            inputs_embeds=padded, attention_mask=mask, generation_config=greedy, tokenizer=self._tokenizer
        )
        return [text.split(STOP)[0] for text in self._tokenizer.batch_decode(answers, skip_special_tokens=True)]


def to_pixels(image: np.ndarray, size: int) -> torch.Tensor:
    """An image, uint8 RGB (h, w, 3), as the model reads it: bicubic to (3, size, size), normalised as in CLIP."""
    import torch
    from PIL import Image

    small = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
