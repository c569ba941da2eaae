"""Captions from any of transformers' image-text-to-text models, by name: Qwen-VL, LLaVA, SmolVLM, InternVL, ...

Models that take videos get the whole frame grid with its times (`view: video`); the others get a few frames or a
contact sheet. Decoding is greedy, so that a clip has the same caption each time.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from stages import weights
from stages.base import ClipError, Measured, Needs, Params, Sample
from stages.caption_text import TEXT_VERSION, AskParams, View, dialogue, in_step, pictures, scene
from stages.frames import FrameSpec

# No code, and of several formats of the weights the one that can hold none.
FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


class ImageTextParams(AskParams):
    """model: a name on the Hugging Face hub, or a folder. revision: the commit, so that another upload under the same
    name is no silent change; a folder's contents are hashed instead."""

    model: str = Field(min_length=1)
    revision: str | None = None
    view: View = "video"
    max_new_tokens: int = Field(256, ge=8, le=4096)


def _complete(folder: Path) -> bool:
    """Whether a folder of the hub's cache holds all weights: a download may have been interrupted."""
    index = folder / "model.safetensors.index.json"
    names = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    return all((folder / name).is_file() for name in names) and (folder / "config.json").is_file()


def _check(folder: Path) -> None:
    """Raises ValueError for a large file in the hub's cache that is not what the hub has: it is a link to a file whose
    name is the hub's sha256 of it. The hub's own client looks at the size alone."""
    for file in sorted(folder.iterdir()):
        target = file.resolve()
        if re.fullmatch("[0-9a-f]{64}", target.name) and weights.digest(target) != target.name:
            raise ValueError(f"caption: {file} is not what the hub has, by its sha256: delete {target} and run again")


@dataclass(frozen=True)
class Shown:
    """What is shown of a clip: the parts of a chat message, one video or some pictures; and the video's times."""

    parts: list[dict[str, Any]]
    metadata: dict[str, Any] | None = None


class ImageText:
    """The engine."""

    Params: type[Params] = ImageTextParams
    needs: ClassVar[Needs] = "grid"
    reads: ClassVar[tuple[str, ...]] = ("crop",)

    def __init__(self, params: ImageTextParams, spec: FrameSpec) -> None:
        self._params = params
        self._model: Any = None  # transformers' classes do not type-check
        self._processor: Any = None
        self._greedy: Any = None

    def version(self) -> str:
        """Versions of prompts and libraries, and of the model its hash where it is a folder, else the hub's commit."""
        parts = [TEXT_VERSION, *(f"{name} {version(name)}" for name in ("transformers", "torch"))]
        own, found = Path(self._params.model), self.folder()
        model = weights.digest(own) if own.is_dir() else "missing" if found is None else found.name
        return ", ".join([*parts, f"model={model[:16]}"])

    def origin(self) -> str:
        """The model's page on the hub."""
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/{self._params.model}"

    def folder(self) -> Path | None:
        """The folder that the user named, or the model in the hub's cache, where all of it is there."""
        from huggingface_hub import snapshot_download

        folder = Path(self._params.model)
        if folder.is_dir():
            return folder
        try:
            # Asked without the patterns, it misses the files that `download` left out.
            found = snapshot_download(
                self._params.model, revision=self._params.revision, allow_patterns=FILES, local_files_only=True
            )
        except (OSError, ValueError):  # none of it is there, or that is no name of a model
            return None
        return Path(found) if _complete(Path(found)) else None

    def download(self) -> None:
        """Get the model from the hub into the hub's cache, unless it is there. Raises ValueError where it cannot be
        had, or is not what the hub has."""
        from huggingface_hub import constants, snapshot_download

        name, barred = self._params.model, weights.offline()
        if (folder := self.folder()) is not None:
            _check(folder)
            return
        place = f"give its folder as stages.caption.model, or fill the hub's cache, {constants.HF_HUB_CACHE}"
        if barred:
            raise ValueError(f"caption: the model {name} is missing and downloads are off ({barred} is set): {place}")
        try:
            folder = Path(snapshot_download(name, revision=self._params.revision, allow_patterns=FILES))
        except (OSError, ValueError) as error:
            text = " ".join(str(error).split())[:300]
            raise ValueError(f"caption: cannot load the model {name} from {self.origin()}: {text}: {place}") from error
        _check(folder)

    def setup(self, device: str) -> None:
        """Load the model, in bfloat16 on a GPU and in single precision on a CPU; code that comes with a model is not
        run. Raises ValueError for a model that is not there, that is of another kind, or that takes no videos."""
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor
        from transformers.utils import logging

        logging.disable_progress_bar()
        name = self._params.model
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        self.download()  # on a machine that is not the driver's
        try:
            folder = self.folder()
            if folder is None:
                raise OSError("files are missing")
            self._processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model: Any = AutoModelForImageTextToText.from_pretrained(
                folder, local_files_only=True, dtype=dtype, trust_remote_code=False, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise ValueError(f"caption: cannot load the model {name}: {' '.join(str(error).split())[:300]}") from error
        if getattr(self._processor, "chat_template", None) is None:
            raise ValueError(f"caption: {name} has no chat template: it cannot be asked questions")
        if self._params.view == "video" and getattr(self._processor, "video_processor", None) is None:
            raise ValueError(f"caption: {name} takes no videos: set view to frames, sheet or middle")
        self._processor.tokenizer.padding_side = "left"  # every row's last position is the one to continue from
        self._model = model.to(device).eval()
        self._greedy = copy.deepcopy(self._model.generation_config)
        self._greedy.update(do_sample=False, num_beams=1, temperature=None, top_p=None, top_k=None)
        self._greedy.update(max_new_tokens=self._params.max_new_tokens, max_length=None)
        if self._greedy.pad_token_id is None:
            tokenizer = self._processor.tokenizer
            pad = tokenizer.pad_token_id
            self._greedy.pad_token_id = tokenizer.eos_token_id if pad is None else pad

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """`caption` and `action` of each sample, or a ClipError where the answers were of no use."""
        grids = [sample.grid() for sample in batch]
        shown = [self._show(sample, grid) for sample, grid in zip(batch, grids, strict=True)]
        talks = [
            dialogue(scene(grid, self._params), self._params.retries, sample.columns.get("caption"))
            for sample, grid in zip(batch, grids, strict=True)
        ]
        return in_step(talks, lambda questions: self._answer(shown, questions))

    def _show(self, sample: Sample, grid: np.ndarray) -> Shown:
        from PIL import Image

        if self._params.view != "video" or len(grid) == 1:
            shown = pictures(grid, self._params)
            return Shown([{"type": "image", "image": Image.fromarray(picture)} for picture in shown])
        assert sample.frames is not None
        times = sample.frames.times_s
        fps = (len(times) - 1) / float(times[-1] - times[0])
        metadata = {"fps": fps, "total_num_frames": len(grid), "frames_indices": list(range(len(grid)))}
        return Shown([{"type": "video", "video": grid}], metadata)

    def _answer(self, shown: Sequence[Shown], questions: Sequence[tuple[int, str]]) -> list[str]:
        """Answers to questions, given as (index in `shown`, question). Stills among videos are a batch of their own."""
        answers: dict[int, str] = {}
        for kind in ("video", "image"):
            rows = [row for row, (i, _) in enumerate(questions) if shown[i].parts[0]["type"] == kind]
            if rows:
                asked = [(shown[i], question) for i, question in (questions[row] for row in rows)]
                answers.update(zip(rows, self._generate(asked), strict=True))
        return [answers[row] for row in range(len(questions))]

    def _generate(self, asked: Sequence[tuple[Shown, str]]) -> list[str]:
        """Greedy answers to questions about clips that are all videos or all pictures."""
        import torch

        chats = [
            [{"role": "user", "content": [*seen.parts, {"type": "text", "text": question}]}] for seen, question in asked
        ]
        options: dict[str, Any] = {"padding": True}
        if asked[0][0].metadata is not None:
            # The grid is the sample already; its times are what some models write into the prompt.
            options |= {"do_sample_frames": False, "video_metadata": [seen.metadata for seen, _ in asked]}
        inputs = self._processor.apply_chat_template(
            chats,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs=options,
        ).to(self._model.device, dtype=self._model.dtype)
        with torch.inference_mode():
            tokens = self._model.generate(**inputs, generation_config=self._greedy)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        return self._processor.batch_decode(new, skip_special_tokens=True)
