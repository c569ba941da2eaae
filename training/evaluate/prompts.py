"""Prompts for each portrait, written by a model behind an OpenAI-compatible server that sees the picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from stages.base import ClipError
from stages.frames import FrameSpec
from stages.openai_caption import OpenAICaption, OpenAIParams
from training.evaluate.plan import read_prompts, write_lines
from training.evaluate.videos import read_picture

COUNT = 140  # a portrait, in the paper
AT_ONCE = 20  # prompts asked for in one question
TEMPLATE = """\
Write {count} prompts for a model that makes short videos of the person in this picture. Each is one sentence that \
says who is seen (as a man, a woman, a boy, a girl), what they wear, where they are and in which light; vary clothes, \
places, times of day and styles. Say nothing of how they move, and no name. One prompt a line, without numbers or any \
other text.{known}"""
KNOWN = "\nDo not repeat these:\n{lines}"


def server(base_url: str, model: str, api_key_env: str | None) -> OpenAICaption:
    """The server, as the caption stage talks to it. Raises ValueError when the key's variable is not set."""
    settings = {"base_url": base_url, "model": model, "api_key_env": api_key_env, "max_tokens": 2048}
    engine = OpenAICaption(OpenAIParams.model_validate(settings), FrameSpec())
    engine.setup("cpu")
    return engine


def write_prompts(
    engine: OpenAICaption, folder: Path, pictures: Sequence[Path], count: int, template: str, out: Path
) -> None:
    """Write `count` different prompts of each picture into the JSONL file `out`, after each picture whole, so that a
    run that was stopped goes on. Raises ValueError when the template cannot be filled in, or the server fails or has no
    new prompts to give."""
    try:
        template.format(count=count, known="")
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"template: braces hold count or known, others are doubled, {{{{ }}}}: {type(error).__name__} {error}"
        ) from None
    found = _already(out, folder, pictures)
    for picture in tqdm(pictures, desc="prompts", unit="portrait", disable=None):
        known = found.setdefault(picture, [])
        for _ in range(3 * -(-count // AT_ONCE)):
            if len(known) >= count:
                break
            known += ask(engine, picture, min(AT_ONCE, count - len(known)), known, template)
        if len(known) < count:
            raise ValueError(f"{picture}: the model gave {len(known)} different prompts, {count} were asked for")
        lines = [
            {"image": p.relative_to(folder).as_posix(), "prompt": prompt} for p, of in found.items() for prompt in of
        ]
        write_lines(out, lines)


def ask(engine: OpenAICaption, picture: Path, count: int, known: Sequence[str], template: str) -> list[str]:
    """At most `count` prompts that are not known yet."""
    avoid = KNOWN.format(lines="\n".join(known)) if known else ""
    text = template.format(count=count, known=avoid)
    image = {"type": "image_url", "image_url": {"url": engine.data_url(read_picture(picture))}}
    (answer,) = engine.ask([[image, {"type": "text", "text": text}]])
    if isinstance(answer, ClipError):
        raise ValueError(f"{picture}: {answer}")
    return lines_of(answer, known)[:count]


def lines_of(answer: str, known: Sequence[str]) -> list[str]:
    """The different prompts of an answer that are not known, without numbers, bullets and quotes."""
    lines = (re.sub(r"^\s*(?:\d+[.)]|[-*])\s*", "", line).strip().strip('"') for line in answer.splitlines())
    return [line for line in dict.fromkeys(lines) if line and line not in known]


def _already(out: Path, folder: Path, pictures: Sequence[Path]) -> dict[Path, list[str]]:
    if not out.is_file():
        return {}
    text = out.read_text(encoding="utf-8")
    done = [picture for picture in pictures if f'"image": "{picture.relative_to(folder).as_posix()}"' in text]
    return read_prompts(out, folder, done)
