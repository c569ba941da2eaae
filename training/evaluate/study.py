"""The user study: a page that shows the methods' videos blind, and the tally of the answers."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from manifests.shards import whole
from training.evaluate.videos import Item, read_folder, read_picture, read_video

PAGE = Path(__file__).with_name("study.html")
QUESTIONS = (
    # id, title, text: the paper's three
    ("identity", "Identity consistency", "Which video keeps the face of the portrait best, from beginning to end?"),
    ("motion", "Motion controllability", "Which video follows the wanted action and strength of motion best?"),
    ("quality", "Overall quality", "Which video is the best one altogether?"),
)
PORTRAIT = 264  # px


def make_study(folders: dict[str, Path], count: int, seed: int, out: Path) -> Path:
    """Write the page `out` and beside it the key that says which video is whose; returns the key's path.

    folders: each method's videos. count: groups shown, drawn from those that all methods have (same portrait by file
    name, P, A and M). seed: fixes which groups, their order, and the order within each (see `orders`). The page names
    no method.
    Raises ValueError when fewer than two methods or no common group are given.
    """
    if len(folders) < 2:
        raise ValueError("a study compares at least two methods")
    found = {method: {_group(item): item for item in read_folder(folder)} for method, folder in folders.items()}
    common = sorted(set.intersection(*(set(of) for of in found.values())))
    if len(common) < count:
        raise ValueError(f"{count} groups asked for, the methods have {len(common)} in common (portrait, P, A and M)")
    draw = random.Random(seed)  # noqa: S311 (an order, no secret)
    trials, key = [], {}
    groups = draw.sample(common, count)
    for number, (group, methods) in enumerate(zip(groups, orders(sorted(found), count, draw), strict=True), 1):
        items = [found[method][group] for method in methods]
        trials.append(
            {
                "id": f"t{number:03}",
                "portrait": _portrait(items[0].image),
                "asked": _asked(items[0]),
                "videos": [_video(item.path) for item in items],
            }
        )
        key[f"t{number:03}"] = methods
    questions = [{"id": name, "title": title, "text": text} for name, title, text in QUESTIONS]
    study: dict[str, Any] = {"questions": questions, "trials": trials}
    study["id"] = hashlib.sha256(json.dumps(study).encode()).hexdigest()[:16]
    text = json.dumps(study, ensure_ascii=False).replace("<", "\\u003c")  # no text can end the script element
    with whole(out) as temporary:
        temporary.write_text(PAGE.read_text(encoding="utf-8").replace("{{study}}", text), encoding="utf-8")
    path = out.with_suffix(".key.json")
    with whole(path) as temporary:
        temporary.write_text(json.dumps({"study": study["id"], "seed": seed, "methods": key}, indent=1))
    return path


def orders(methods: Sequence[str], count: int, draw: random.Random) -> list[list[str]]:
    """The methods in `count` random orders that together show each method in each place equally often, within one.

    Latin squares by rotation: of every len(methods) orders each is a rotation of one random order, which is drawn
    anew for the next ones; the orders then come in random sequence.
    """
    n = len(methods)
    found: list[list[str]] = []
    while len(found) < count:
        base = draw.sample(methods, n)
        found += [base[i:] + base[:i] for i in draw.sample(range(n), min(n, count - len(found)))]
    draw.shuffle(found)
    return found


def _group(item: Item) -> tuple[str, str, str, float]:
    return item.image.name, item.prompt, item.action, -1.0 if item.intensity is None else item.intensity


def _asked(item: Item) -> list[tuple[str, str]]:
    facts = [("Description", item.prompt), ("Action", item.action)]
    if item.intensity is not None:
        facts.append(("Motion", f"{item.intensity:g} on a scale from 0 (still) to 20 (strong)"))
    return [(title, text) for title, text in facts if text]


def _portrait(path: Path) -> str:
    from PIL import Image

    image = Image.fromarray(read_picture(path))
    image.thumbnail((2 * PORTRAIT, PORTRAIT), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _video(path: Path) -> str:
    """The video encoded anew, the same way for all methods, so that neither file nor metadata tells them apart."""
    from training.sampler import write_mp4

    frames, fps = read_video(path)
    height, width = (side // 2 * 2 for side in frames.shape[1:3])
    with tempfile.TemporaryDirectory() as folder:
        held = Path(folder) / "video.mp4"
        write_mp4(held, frames[:, :height, :width], Fraction(fps).limit_denominator(1000))
        return f"data:video/mp4;base64,{base64.b64encode(held.read_bytes()).decode()}"


def tally(key_paths: Sequence[Path], answer_paths: Sequence[Path]) -> dict[str, Any]:
    """How often each method was chosen, for each question, with Wilson's 95 % interval.

    Each answers file belongs to the key of its study. The same participant's file is counted once, the one saved last.
    Raises ValueError for a file that belongs to no key, or names an unknown trial, question or choice.
    """
    keys = {}
    for path in key_paths:
        read = _read(path, "key of a study", "study", "methods")
        keys[read["study"]] = read["methods"]
    latest: dict[tuple[str, str], tuple[str, Path, dict[str, Any]]] = {}
    for path in answer_paths:
        read = _read(path, "answers file of a study", "study", "participant", "saved", "answers")
        if read["study"] not in keys:
            raise ValueError(f"{path}: belongs to no study of the keys given")
        who = (read["study"], read["participant"] or str(path))
        if who not in latest or read["saved"] > latest[who][0]:
            latest[who] = (read["saved"], path, read)
    chosen = {name: Counter[str]() for name, _, _ in QUESTIONS}
    for _, path, read in latest.values():
        for answer in read["answers"]:
            try:
                method = keys[read["study"]][answer["trial"]][answer["choice"]]
                chosen[answer["question"]][method] += 1
            except (KeyError, IndexError, TypeError):
                raise ValueError(f"{path}: no such trial, question or choice: {answer}") from None
    methods = sorted({method for key in keys.values() for of in key.values() for method in of})
    return {
        "participants": len(latest),
        "questions": {
            name: {
                "title": title,
                "answers": sum(chosen[name].values()),
                "methods": {method: _share(chosen[name][method], sum(chosen[name].values())) for method in methods},
            }
            for name, title, _ in QUESTIONS
        },
    }


def _read(path: Path, what: str, *needed: str) -> dict[str, Any]:
    """A JSON object with these keys. Raises ValueError."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no text
        raise ValueError(f"{path}: is no {what}: {error}") from None
    if not isinstance(read, dict) or (lacking := [name for name in needed if name not in read]):
        raise ValueError(f"{path}: is no {what}" + (f": lacks {', '.join(lacking)}" if isinstance(read, dict) else ""))
    return read


def _share(count: int, of: int) -> dict[str, Any]:
    if not of:
        return {"chosen": 0, "share": None, "interval": None}
    return {"chosen": count, "share": count / of, "interval": list(wilson(count, of))}


def wilson(count: int, of: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share."""
    share = count / of
    centre = (share + z**2 / (2 * of)) / (1 + z**2 / of)
    reach = z / (1 + z**2 / of) * (share * (1 - share) / of + z**2 / (4 * of**2)) ** 0.5
    return max(0.0, centre - reach), min(1.0, centre + reach)


def tally_table(result: dict[str, Any]) -> str:
    """The tally as Markdown."""
    questions = result["questions"].values()
    lines = [f"| Method | {' | '.join(q['title'] for q in questions)} |", f"|---|{'---|' * len(QUESTIONS)}"]
    for method in next(iter(questions))["methods"]:
        cells = []
        for question in questions:
            found = question["methods"][method]
            low, high = found["interval"] or (0, 0)
            cells.append("" if found["share"] is None else f"{found['share']:.1%} ({low:.1%} to {high:.1%})")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    answers = next(iter(questions))["answers"]
    lines += [
        "",
        f"{result['participants']} participants, {answers} answers a question: share of the answers that chose the "
        "method, with Wilson's 95 % interval, which takes all answers as independent.",
    ]
    return "\n".join(lines) + "\n"
