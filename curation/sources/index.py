"""The JSON indexes of CelebV-HQ, CelebV-Text and AAHQ, read as a stream: one entry after the other, none kept.

An index is untrusted: a value that is too large or nested too deeply is never built, and what an entry holds is checked
type by type. A file that is no index raises ConfigError; an entry that is malformed is an entry with a `problem`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import ijson

from curation.errors import ConfigError, shown
from curation.sources.files import safe_name, short
from curation.sources.folders import open_index

MAX_TOKEN_BYTES = 1 << 20  # read without one JSON token coming out
MAX_VALUES = 10_000  # in one entry
MAX_DEPTH = 32
NOT_ENTRIES = frozenset({"meta_info"})  # beside the clips of CelebV-HQ


class BadEntry(ValueError):
    """What is wrong with an entry of an index, in words for the user."""


@dataclass(frozen=True)
class Named:
    """One entry: its number in the file (from 1), its key, its value, and what is wrong with either."""

    number: int
    key: str
    value: Mapping[str, Any]
    problem: str | None = None


class _Bounded:
    """The index file, which refuses to be read on while the parser swallows it without giving a token."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.pending = 0

    def read(self, size: int = -1) -> bytes:
        if self.pending > MAX_TOKEN_BYTES:
            raise BadEntry(f"one of its values has more than {MAX_TOKEN_BYTES:,} bytes")
        chunk = self._file.read(size)
        self.pending += len(chunk)
        return chunk


def read_entries(root: str, relative: str) -> Iterator[Named]:
    """The entries of an index in the file's order: the members of its "clips", else those of its top level.

    A key that comes again, with or without .mp4, is an entry with a problem, so that no clip is listed twice. Raises
    ConfigError.
    """
    seen: set[int] = set()  # hashes: 60 MB for a million entries
    with open_index(root, relative) as file:
        where = f"{root}/{relative}"
        number = 0
        try:
            for key, value in _members(_tokens(_Bounded(file))):
                number += 1
                name = hash(key.removesuffix(".mp4"))
                known = name in seen
                seen.add(name)
                yield _named(number, key, value, "comes twice in the index" if known else None)
        except ijson.JSONError as error:
            said = shown(" ".join(str(error).split())[:100])
            raise ConfigError(f"{where}: is not valid JSON after entry {number:,}: {said}") from None
        except BadEntry as error:
            raise ConfigError(f"{where}: after entry {number:,}: {error}") from None
        if not number:
            raise ConfigError(f"{where}: holds no entries; expected a JSON object of clips by name")


def _named(number: int, key: str, value: object, problem: str | None) -> Named:
    problem = problem or safe_name(key)
    if problem is None and isinstance(value, BadEntry):
        problem = str(value)
    if problem is None and not isinstance(value, dict):
        problem = f"expected an object, got {short(value)}"
    return Named(number, key, value if isinstance(value, dict) else {}, problem)


def _tokens(file: _Bounded) -> Iterator[tuple[str, Any]]:
    for event, value in ijson.basic_parse(file, use_float=True):
        file.pending = 0
        yield event, value


def _members(tokens: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Key and value of each entry. A value too large or too deep is a BadEntry in its place."""
    event, _ = next(tokens, ("", None))
    if event != "start_map":
        raise BadEntry("expected a JSON object of clips by name")
    for key in _keys(tokens):
        event, value = next(tokens)
        if key == "clips" and event == "start_map":
            for inner in _keys(tokens):
                yield inner, _build(tokens, *next(tokens))
        elif key in NOT_ENTRIES:
            _build(tokens, event, value)
        else:
            yield key, _build(tokens, event, value)


def _keys(tokens: Iterator[tuple[str, Any]]) -> Iterator[str]:
    """The keys of the object whose start has been read; their values are left for the caller to read."""
    for event, value in tokens:
        if event == "end_map":
            return
        yield value


def _build(tokens: Iterator[tuple[str, Any]], event: str, value: Any) -> Any:
    """The value that begins with this token; read to its end in any case, built only within the limits."""
    if event not in ("start_map", "start_array"):
        return value
    built: Any = {} if event == "start_map" else []
    stack, keys = [built], [""]
    depth, count = 1, 0
    problem: BadEntry | None = None
    while depth:
        event, value = next(tokens)
        count += 1
        if count > MAX_VALUES:
            problem = BadEntry(f"holds more than {MAX_VALUES:,} values")
        elif depth > MAX_DEPTH:
            problem = BadEntry(f"is nested more than {MAX_DEPTH} deep")
        if event in ("end_map", "end_array"):
            depth -= 1
            if problem is None:
                stack.pop()
                keys.pop()
            continue
        opens = event in ("start_map", "start_array")
        depth += opens
        if problem is not None:
            continue
        if event == "map_key":
            keys[-1] = value
            continue
        made = ({} if event == "start_map" else []) if opens else value
        if isinstance(stack[-1], dict):
            stack[-1][keys[-1]] = made
        else:
            stack[-1].append(made)
        if opens:
            stack.append(made)
            keys.append("")
    return problem or built


def text_at(value: Mapping[str, Any], key: str) -> str:
    """The plain file name at `key`. Raises BadEntry."""
    if (problem := safe_name(value.get(key))) is not None:
        raise BadEntry(f"{key}: {problem}")
    return value[key]


def number_at(value: Mapping[str, Any], *path: str) -> float:
    """The finite number at a path of keys. Raises BadEntry."""
    found: Any = value
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise BadEntry(f"{'.'.join(path)}: expected a number, got {short(found)}")
    return float(found)
