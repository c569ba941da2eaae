"""The action phrase A of a request that has none: taken from P by a caption engine of the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from stages.base import ClipError, Sample
from stages.caption import STAGE, action_in
from stages.clip import Clip
from stages.frames import Frames, FrameSpec


@dataclass(frozen=True)
class Captioner:
    """An engine of the caption stage, set up. It is asked as in curation, with P given: the picture is the face's I.

    name: what stands in the records for it.
    """

    name: str
    engine: Any

    @classmethod
    def of(cls, engine: str, settings: Sequence[str], device: str) -> Captioner:
        """settings: `key=value` of the engine's parameters. Raises ValueError with one line when one is wrong, or when
        the engine's models are missing."""
        values = {}
        for setting in settings:
            key, equals, value = setting.partition("=")
            if not equals:
                raise ValueError(f"--captioner-set {setting}: expected key=value")
            values[key] = yaml.safe_load(value)
        kind = STAGE.engines[engine]
        try:
            params = kind.Params.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise ValueError(f"--captioner-set {key}: {first['msg']} ({engine})") from None
        made = kind(params, FrameSpec.model_validate({}))
        made.setup(device)
        return cls(" ".join([engine, *settings]), made)

    def action(self, prompt: str, square: np.ndarray, image: Path) -> str:
        """A, from P and the picture I, uint8 RGB (s, s, 3). Raises ValueError when the engine finds none."""
        if self.name == "kinematic":
            return action_in(prompt) or ""
        side = len(square)
        frames = Frames(square[None], np.zeros(1), (side, side), "pillow")
        columns = {"crop": [0.0, 0.0, float(side), float(side)], "caption": prompt}
        [found] = self.engine.measure([Sample(Clip("", image.name, "image", ""), columns, frames)])
        if isinstance(found, ClipError):
            raise ValueError(f"{image}: no action found in the prompt {prompt!r}: {found}")
        return found.columns["action"]
