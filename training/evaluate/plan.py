"""What to generate: reference portraits times prompts, as the JSONL file that training.sample takes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from manifests.shards import whole

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
INTENSITY = 20.0  # Table 1 was made with this M and an empty action


def portraits(folder: Path) -> list[Path]:
    """All pictures below the folder, sorted. Raises ValueError when there are none."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: is not a folder of portraits")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())
    if not found:
        raise ValueError(f"{folder}: holds no pictures ({', '.join(sorted(PICTURES))})")
    return found


def read_prompts(path: Path, folder: Path, pictures: Sequence[Path]) -> dict[Path, list[str]]:
    """The prompts of each portrait.

    path: a text file with a prompt a line, for every portrait; or JSONL, a line {"image": ..., "prompt": ...} with the
    picture's path below the folder (`training.evaluate prompts` writes it). Raises ValueError that names the line.
    """
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix != ".jsonl":
        prompts = [line for line in lines if line and not line.startswith("#")]
        if not prompts:
            raise ValueError(f"{path}: holds no prompts")
        return {picture: prompts for picture in pictures}
    found: dict[Path, list[str]] = {picture: [] for picture in pictures}
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            image, prompt = (str(json.loads(line)[key]) for key in ("image", "prompt"))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f'{path}:{number}: expected {{"image": ..., "prompt": ...}}: {error!r}') from None
        if folder / image not in found:
            raise ValueError(f"{path}:{number}: {image} is no picture of {folder}")
        found[folder / image].append(prompt)
    without = [picture for picture, prompts in found.items() if not prompts]
    if without:
        raise ValueError(f"{path}: has no prompt for {without[0].relative_to(folder)}")
    return found


def requests(prompts: dict[Path, list[str]], intensities: Sequence[float], action: str, seed: int) -> list[dict]:
    """A request for each portrait, prompt and M. Paths are absolute: a request's name, by which sampling resumes, comes
    from them."""
    return [
        {"image": str(picture.resolve()), "prompt": prompt, "action": action, "intensity": m, "seed": seed}
        for picture, of in prompts.items()
        for prompt in of
        for m in intensities
    ]


def write_parts(lines: Sequence[dict], out: Path, parts: int) -> list[Path]:
    """The lines as one JSONL file, or dealt out to several, NAME-0.jsonl and so on, for as many processes."""
    paths = [out] if parts == 1 else [out.with_name(f"{out.stem}-{i}{out.suffix}") for i in range(parts)]
    for i, path in enumerate(paths):
        write_lines(path, lines[i::parts])
    return paths


def write_lines(path: Path, lines: Iterable[dict]) -> None:
    """A JSONL file, whole or not there."""
    with whole(path) as temporary:
        temporary.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
