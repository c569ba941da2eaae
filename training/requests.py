"""What a sampling call asks for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Request(BaseModel):
    """One video: I, P, A, M, a seed, and how to sample. None: as the checkpoint's config says.

    An action that is None is taken from the prompt.

    lambda_ scales the identity branch (Eq. 3), alpha the intensity branch (Eq. 8).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: Path
    prompt: str = ""
    action: str | None = None
    intensity: float = Field(10.0, ge=0, le=20)
    seed: int = Field(0, ge=0)
    negative_prompt: str = ""
    guidance: float | None = Field(None, ge=1)
    steps: int | None = Field(None, ge=1, le=1000)
    lambda_: float | None = Field(None, ge=0, alias="lambda")
    alpha: float | None = Field(None, ge=0)

    def name(self, by: str = "") -> str:
        """A file name: picture, M, seed, and a hash of the whole request and of what it is made `by`."""
        digest = hashlib.sha256((self.model_dump_json(by_alias=True) + by).encode()).hexdigest()[:8]
        return f"{self.image.stem}-M{self.intensity:g}-s{self.seed}-{digest}"


def request(where: str, **values: object) -> Request:
    """A request. Raises ValueError with one line that begins with `where` and names the key that is wrong."""
    try:
        return Request.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {key}: {first['msg']}, not {first['input']!r}") from None


def read_batch(path: Path) -> list[Request]:
    """A JSONL file, an object of Request's fields a line; images relative to the file. Raises ValueError by line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: is no JSON: {error}") from None
        if not isinstance(values, dict) or "image" not in values:
            raise ValueError(f"{where}: expected an object with an image")
        found.append(request(where, **values | {"image": path.parent / str(values["image"])}))
    return found
