"""What the caption engines that ask a model share: the pictures shown, the prompts, and the cleaning of the answers.

Two questions are asked of every clip: for the overall description P, then, with P in the question, for the action
phrase A. An answer that cannot be used is asked for again; a clip without two usable answers ends as a ClipError, so
that chatter never becomes a caption.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Generator, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from stages.base import ClipError, Measured, Params

# Part of the engines' versions: raise it when a prompt or a rule of the cleaning changes.
TEXT_VERSION = "prompts 2"

View = Literal["middle", "sheet", "frames", "video"]


class AskParams(Params):
    """What is shown, and how often it is asked again.

    view: "middle" shows the middle frame; "sheet" shows `frames` moments as one contact sheet; "frames" shows them as
    separate pictures; "video" hands over the whole grid as a video. A still is always shown as one picture.
    retries: how often an unusable answer is asked for again.
    """

    view: View
    frames: int = Field(4, ge=1, le=16)
    retries: int = Field(2, ge=0, le=10)


# --- pictures ---------------------------------------------------------------------------------------------------------


def moments(grid: np.ndarray, count: int) -> np.ndarray:
    """`count` frames of the grid (n, h, w, 3), evenly spaced from the first to the last; all of them where n <= count;
    the middle one where count is 1."""
    n = len(grid)
    if count == 1:
        return grid[n // 2 : n // 2 + 1]
    return grid[np.unique(np.linspace(0, n - 1, count).round().astype(int))]


def contact_sheet(frames: np.ndarray) -> np.ndarray:
    """Frames (n, h, w, 3) side by side, row by row, in the squarest arrangement: (rows * h, columns * w, 3). Cells
    without a frame are black."""
    n, h, w, c = frames.shape
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    cells = np.zeros((rows * columns, h, w, c), frames.dtype)
    cells[:n] = frames
    return cells.reshape(rows, columns, h, w, c).swapaxes(1, 2).reshape(rows * h, columns * w, c)


def pictures(grid: np.ndarray, params: AskParams) -> list[np.ndarray]:
    """What is shown of the grid, uint8 RGB (n, h, w, 3): a list of pictures, or of all frames for "video"."""
    if len(grid) == 1 or params.view == "middle":
        return list(moments(grid, 1))
    if params.view == "video":
        return list(grid)
    chosen = moments(grid, params.frames)
    return [contact_sheet(chosen)] if params.view == "sheet" else list(chosen)


def scene(grid: np.ndarray, params: AskParams) -> str:
    """The sentence that tells the model what it is shown."""
    if len(grid) == 1:
        return "This is a picture of a person."
    if params.view == "middle":
        return "This is a frame of a video of a person."
    if params.view == "video":
        return "This is a short video of a person."
    n = len(moments(grid, params.frames))
    if params.view == "sheet":
        return f"This shows {n} moments of one short video of a person, from left to right and from top to bottom."
    return f"These are {n} frames of one short video of a person, in order."


# --- the dialogue -----------------------------------------------------------------------------------------------------

ASK_CAPTION = "Describe the person, what the person does and the surroundings in one or two plain English sentences."
ASK_ACTION = (
    'It was described like this: "{caption}" What is the person doing? Answer with an English phrase of one to six '
    "words, beginning with a verb that ends in -ing."
)
ASK_AGAIN = " Another answer could not be used: it {reason}. Give the {what} alone."

Dialogue = Generator[str, str, dict[str, str]]


def dialogue(scene: str, retries: int, caption: str | None = None) -> Dialogue:
    """The questions to ask about one clip: yields a question, is sent the answer, returns the columns `caption` and
    `action`; asks for the action alone where there is a `caption`. Raises ClipError when `retries` further answers to
    one question are unusable too."""
    if caption is None:
        caption = yield from _until_usable(f"{scene} {ASK_CAPTION}", "description", clean_caption, retries)
    question = f"{scene} {ASK_ACTION.format(caption=caption)}"
    action = yield from _until_usable(question, "phrase", clean_action, retries)
    return {"caption": caption, "action": action}


def _until_usable(question: str, what: str, clean: Callable[[str], str], retries: int) -> Generator[str, str, str]:
    again = ""
    for _ in range(retries + 1):
        answer = yield question + again
        try:
            return clean(answer)
        except Unusable as problem:
            reason = str(problem)
            # Decoding is greedy: the same question would bring the same answer.
            again = ASK_AGAIN.format(reason=reason, what=what)
    raise ClipError(f"no usable {what} in {retries + 1} answers: the last {reason}: {answer[:200]!r}")


def advance(talk: Dialogue, answer: str | None) -> str | Measured | ClipError:
    """Send an answer (None to begin): the next question, or how the dialogue ended."""
    try:
        return next(talk) if answer is None else talk.send(answer)
    except StopIteration as end:
        return Measured(end.value)
    except ClipError as error:
        return error


def in_step(talks: Sequence[Dialogue], ask: Callable[[list[tuple[int, str]]], list[str]]) -> list[Measured | ClipError]:
    """Lead many dialogues at once: each call of `ask` answers all open questions, given as (index of the dialogue,
    question), in their order."""
    states = [advance(talk, None) for talk in talks]
    while questions := [(i, state) for i, state in enumerate(states) if isinstance(state, str)]:
        answers = ask(questions)
        assert len(answers) == len(questions), "an answer was lost"
        for (i, _), answer in zip(questions, answers, strict=True):
            states[i] = advance(talks[i], answer)
    return [state for state in states if not isinstance(state, str)]


# --- cleaning ---------------------------------------------------------------------------------------------------------

MAX_CAPTION_WORDS = 60  # CLIP's text encoder, which reads the captions in training, sees 77 tokens
MAX_ACTION_WORDS = 8


class Unusable(Exception):
    """Why an answer is no caption; the text continues "it ..."."""


_THOUGHTS = re.compile(r"<think>.*?(?:</think>|\Z)", re.S)
_TAG = re.compile(r"<[^<>\s]{1,24}>|\[/?INST\]")
_NEXT_TURN = re.compile(r"###|\b(?:human|user)\s*:", re.I)
_MARKUP = re.compile(r"^\s*(?:[-•]|\d{1,2}[.)])\s+|[*_`#]+", re.M)
_PICTURE = r"(?:image|picture|photo|photograph|video|clip|frame|collage|contact sheet)s?"
_PREAMBLE = re.compile(
    r"(?:assistant|answer|caption|(?:overall )?description|action(?: phrase)?|phrase|response)\s*:\s*"
    r"|(?:sure(?: thing)?|certainly|of course|okay|ok|absolutely|yes|(?:hello|hi)(?: there)?)\b[\s,.!:]+"
    r"|(?:here(?:'s| is| are)|below is|the following is)\b[^.:]{0,80}:\s*"
    rf"|(?:in|from|based on) (?:the|this|these) {_PICTURE}(?:\s*,\s*|\s+(?=(?:i|we|you) (?:can )?see\b))"
    r"|(?:i|we|you) (?:can )?see (?:that )?"
    rf"|(?:the|this|these) {_PICTURE} (?:also )?(?:shows?|depicts?|features?|displays?|captures?|portrays?|is of)\s+"
    rf"|(?:this is )?an? {_PICTURE} (?:of|showing|shows|depicting)\s+",
    re.I,
)
_REFUSAL = re.compile(
    r"\bas an ai\b|\blanguage model\b|\bi(?: am|'m) (?:sorry|unable|not able)\b|\bunable to (?:see|view|determine)\b"
    r"|\bi (?:cannot|can't|can not|do not|don't) (?:see|view|describe|identify|help|assist|provide|determine|have)\b"
    r"|\bno (?:image|picture|video) (?:was |is |has been )?(?:provided|attached|given)\b",
    re.I,
)
_CLOSING = re.compile(
    r"(?:let me know|please|feel free|i hope|hope (?:this|that)|thank|if you|i can|note that|note:|is there"
    r"|i(?:'m| am) (?:happy|glad))\b",
    re.I,
)
_EMPTY = re.compile(
    r"(?:none|n/?a|null|unknown|unclear|not (?:applicable|visible|clear)|no (?:action|description|caption))\W*"
    r"|(?:nothing|nobody|no one)\b.*",
    re.I | re.S,
)
_SUBJECT = re.compile(
    r".*?\b(?:is|are|appears? to be|seems? to be)\s+"
    r"|(?:(?:the|a|an)\s+)?(?:\w+\s+)?(?:person|man|woman|girl|boy|child|baby|he|she|they|someone|subject)\s+",
    re.I,
)
_SIGNS = ("So", "Sk", "Cf", "Cn", "Co", "Cs")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_ENGLISH = frozenset(
    "a an the and or of in on at to with by from for is are was be his her their he she they it its this that who "  # noqa: SIM905
    "which while as into up down over under behind near against".split()
)
_FOREIGN = frozenset(
    "le la les un une des du et est dans avec qui el los las y en con que una der das und ist mit ein eine auf im "  # noqa: SIM905
    "il lo gli di che è os um uma com não het een".split()
)
_NO_VERB = frozenset(
    "nothing something anything everything during morning evening clothing string spring ceiling building".split()  # noqa: SIM905
)


def clean_caption(answer: str) -> str:
    """The description in a model's answer: one to a few English sentences of 3 to `MAX_CAPTION_WORDS` words, without
    greetings, labels, markup, "the image shows" and closing remarks. A sentence that was cut off is dropped. Raises
    Unusable."""
    text = re.sub(r"(?<![.!?,;:])\n(?=[A-Z])", ". ", _plain(answer)).replace("\n", " ")
    led = (_without_lead(s) for s in re.split(r"(?<=[.!?])\s+", text))
    sentences = [s[0].upper() + s[1:] for s in led if s and not s.endswith("?") and not _CLOSING.match(s)]
    if len(sentences) > 1 and sentences[-1][-1] not in ".!":
        del sentences[-1]
    kept: list[str] = []
    for sentence in sentences:
        if len(_WORD.findall(" ".join([*kept, sentence]))) > MAX_CAPTION_WORDS:
            break
        kept.append(sentence)
    if sentences and not kept:
        raise Unusable(f"is longer than {MAX_CAPTION_WORDS} words")
    text = " ".join(kept)
    words = [w.lower() for w in _WORD.findall(text)]
    if len(words) < 3:
        raise Unusable("is empty or shorter than three words")
    _check_language(words)
    if sum(w in _ENGLISH for w in words) <= sum(w in _FOREIGN - _ENGLISH for w in words):
        raise Unusable("is not English")
    # Small models get stuck in a loop.
    if len(words) >= 12 and len(set(words)) < 0.4 * len(words):
        raise Unusable("repeats itself")
    return text if text[-1] in ".!" else text.rstrip(",;:- ") + "."


def clean_action(answer: str) -> str:
    """The action phrase in a model's answer: 1 to `MAX_ACTION_WORDS` English words with a verb in -ing, lower case at
    the start, without a subject ("the man is") and full stop. Raises Unusable."""
    text = re.split(r"(?<=[.!?])\s+|[\n;]", _plain(answer))[0]
    text = text.strip(" \"'“”‘’.,!:;-")
    found = list(_WORD.finditer(text))
    if found and not _is_verb(found[0][0]) and (subject := _SUBJECT.match(text)):
        text = text[subject.end() :].strip(" \"'“”‘’")
        found = list(_WORD.finditer(text))
    if found and found[0][0].lower() in _ENGLISH:  # "in a red dress talking"
        text = text[next((w.start() for w in found if _is_verb(w[0])), 0) :]
    if len(_WORD.findall(text)) > MAX_ACTION_WORDS:
        text = text.split(",")[0]
    words = [w.lower() for w in _WORD.findall(text)]
    if not words:
        raise Unusable("is empty")
    if len(words) > MAX_ACTION_WORDS:
        raise Unusable(f"is longer than {MAX_ACTION_WORDS} words")
    _check_language(words)
    if sum(w in _ENGLISH for w in words) < sum(w in _FOREIGN - _ENGLISH for w in words):
        raise Unusable("is not English")
    if not any(map(_is_verb, words)):
        raise Unusable("names no action in -ing")
    return text[0].lower() + text[1:]


def _plain(answer: str) -> str:
    """An answer without thoughts, special tokens, markup, greetings and labels; its lines are kept. Raises Unusable
    when it refuses or nothing is left."""
    answer = answer.rstrip("\ufffd")  # cut off within a character
    if "\ufffd" in answer:
        raise Unusable("holds bytes that are no text")
    # without pictographs and invisible characters
    kept = (c for c in unicodedata.normalize("NFKC", answer) if unicodedata.category(c) not in _SIGNS and c != "\ufe0f")
    text = "".join(kept)
    text = _TAG.sub(" ", _THOUGHTS.sub(" ", text)).strip().lstrip("# ")
    text = _NEXT_TURN.split(text)[0]
    text = _MARKUP.sub("", text).replace("’", "'")
    text = re.sub(r"\s*\n\s*", "\n", re.sub(r"[^\S\n]+", " ", text)).strip(" \n\"'“”‘")
    if _REFUSAL.search(text):
        raise Unusable("refuses to answer")
    text = _without_lead(text)
    if not text or _EMPTY.fullmatch(text):
        raise Unusable("is empty")
    return text


def _without_lead(text: str) -> str:
    while lead := _PREAMBLE.match(text):
        text = text[lead.end() :].strip(" \n\"'“”‘")
    return text


def _is_verb(word: str) -> bool:
    return word.lower().endswith("ing") and len(word) >= 5 and word.lower() not in _NO_VERB


def _check_language(words: list[str]) -> None:
    if not all(unicodedata.name(c, "").startswith("LATIN") for word in words for c in word if c.isalpha()):
        raise Unusable("is not English")
