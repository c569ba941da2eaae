"""The OpenAI-compatible caption engine against a local server that misbehaves."""

from __future__ import annotations

import asyncio
import base64
import io
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from stages.base import ClipError, Measured, Sample
from stages.clip import Clip
from stages.frames import Frames, FrameSpec
from stages.openai_caption import OpenAICaption, OpenAIParams
from tests.stages.caption_server import THINGS, Server, right, serving

SIZE = 64


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        yield state


def engine_for(server: Server, **params: Any) -> tuple[OpenAICaption, list[float]]:
    """The engine, and the list of how long it slept between attempts (it does not really sleep)."""
    given = {"base_url": server.url, "model": "vlm", "backoff_s": 1.0, "deadline_s": 20.0, **params}
    engine = OpenAICaption(OpenAIParams(**given), FrameSpec(size=SIZE))
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(0)

    engine.sleep = sleep
    engine.random = random.Random(1)
    engine.setup("cpu")
    return engine, slept


def sample(clip: int, frames: int = 16) -> Sample:
    images = np.full((frames, SIZE, SIZE + 20, 3), 16 * clip + 8, np.uint8)
    decoded = Frames(images, np.arange(frames) / 4.0, (SIZE + 20, SIZE), "pyav")
    return Sample(
        Clip("talks", f"{clip}.mp4", "video", "1-1"), {"crop": [10.0, 0.0, 10.0 + SIZE, float(SIZE)]}, decoded
    )


def texts(results: list[Measured | ClipError]) -> list[tuple[str, str] | str]:
    return [(r.columns["caption"], r.columns["action"]) if isinstance(r, Measured) else str(r) for r in results]


def test_captions_stay_with_their_clips_when_answers_come_backwards(server: Server) -> None:
    n = len(THINGS)

    def backwards(clip: int, what: str, attempt: int) -> None:
        if clip + 1 < n:
            server.wait_for(clip + 1, what)

    server.behave = backwards
    engine, _ = engine_for(server, concurrency=n)
    assert texts(engine.measure([sample(i) for i in range(n)])) == [right(i) for i in range(n)]
    assert server.faults == []
    assert [clip for clip, what in server.done if what == "caption"] == list(range(n))[::-1]


def test_captions_stay_with_their_clips_through_errors_and_hangs(server: Server) -> None:
    n = len(THINGS)

    def unruly(clip: int, what: str, attempt: int) -> int | str | None:
        if attempt == 0 and clip % 4 == 0:
            return 500
        if attempt == 0 and clip % 4 == 1:
            server.closing.wait(6)  # far beyond the deadline
        if attempt == 0 and clip % 4 == 2:
            return "I'm sorry, I cannot help with that."
        if attempt == 1 and clip % 8 == 0:
            return 429
        return None

    server.behave = unruly
    engine, slept = engine_for(server, concurrency=n, deadline_s=2.0)
    assert texts(engine.measure([sample(i) for i in range(n)])) == [right(i) for i in range(n)]
    assert server.faults == []
    asked = Counter((clip, what) for clip, what, _ in server.seen)
    expected = {0: 3, 1: 2, 2: 2, 3: 1, 4: 2, 5: 2, 6: 2, 7: 1}
    assert asked == {(clip, what): expected[clip % 8] for clip in range(n) for what in ("caption", "action")}
    assert sum(s >= 7.0 for s in slept) == 4  # the server's Retry-After of two clips' two questions


def test_backoff_doubles_less_a_random_part_and_ends(server: Server) -> None:
    server.behave = lambda clip, what, attempt: 503
    engine, slept = engine_for(server, attempts=5)
    (error,) = engine.measure([sample(3)])
    assert isinstance(error, ClipError)
    assert error.transient
    assert str(error) == "caption server failed 5 times, at last with 503 Service Unavailable: no"
    assert [round(s, 3) for s in slept] == [round(2**i * random_part, 3) for i, random_part in enumerate(_parts(4))]
    assert all(2**i * 0.5 <= s <= 2**i for i, s in enumerate(slept))


def _parts(n: int) -> list[float]:
    source = random.Random(1)
    return [source.uniform(0.5, 1.0) for _ in range(n)]


@pytest.mark.parametrize(("status", "transient"), [(400, False), (413, False), (422, False), (401, True), (404, True)])
def test_a_refused_request_is_not_repeated_and_fails_its_clip_alone(
    server: Server, status: int, transient: bool
) -> None:
    server.behave = lambda clip, what, attempt: status if clip == 1 else None
    engine, slept = engine_for(server)
    results = engine.measure([sample(i) for i in range(3)])
    assert texts(results)[::2] == [right(0), right(2)]
    assert isinstance(results[1], ClipError)
    assert results[1].transient == transient
    assert str(results[1]).startswith(f"caption server refused the request: {status} ")
    assert [s for s in server.seen if s[0] == 1] == [(1, "caption", 0)]
    assert slept == []


@pytest.mark.parametrize("status", [408, 429, 500, 502])
def test_a_passing_error_is_tried_again(server: Server, status: int) -> None:
    server.behave = lambda clip, what, attempt: status if attempt == 0 else None
    engine, slept = engine_for(server)
    assert texts(engine.measure([sample(5)])) == [right(5)]
    assert len(slept) == 2


def test_a_server_that_hangs_ends_the_clip_and_no_other(server: Server) -> None:
    def hang(clip: int, what: str, attempt: int) -> None:
        if clip == 1:
            server.closing.wait(5)

    server.behave = hang
    engine, _ = engine_for(server, deadline_s=1.0, attempts=2)
    results = engine.measure([sample(0), sample(1), sample(2)])
    assert texts(results) == [
        right(0),
        "caption server failed 2 times, at last with no answer within 1 s",
        right(2),
    ]
    assert isinstance(results[1], ClipError)
    assert results[1].transient


def test_chatter_is_never_stored(server: Server) -> None:
    server.behave = lambda clip, what, attempt: "Sure! Happy to help?" if (clip, what) == (1, "action") else None
    engine, _ = engine_for(server, retries=2)
    results = engine.measure([sample(0), sample(1)])
    assert texts(results) == [
        right(0),
        "no usable phrase in 3 answers: the last names no action in -ing: 'Sure! Happy to help?'",
    ]
    assert isinstance(results[1], ClipError)
    assert not results[1].transient
    last = server.requests[-1]["messages"][0]["content"][-1]["text"]
    assert last.endswith("Another answer could not be used: it names no action in -ing. Give the phrase alone.")


def test_nobody_listening_is_transient() -> None:
    engine, slept = engine_for(Server(url="http://127.0.0.1:9/v1"), attempts=3)
    (error,) = engine.measure([sample(0)])
    assert isinstance(error, ClipError)
    assert error.transient
    assert str(error).startswith("caption server failed 3 times, at last with ClientConnectorError")
    assert len(slept) == 2


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_requests_at_once_than_allowed(server: Server, limit: int) -> None:
    def slow(clip: int, what: str, attempt: int) -> None:
        server.closing.wait(0.03)

    server.behave = slow
    engine, _ = engine_for(server, concurrency=limit)
    assert texts(engine.measure([sample(i) for i in range(8)])) == [right(i) for i in range(8)]
    assert server.most_open == limit


@pytest.mark.parametrize(
    ("view", "image_format", "shapes"),
    [
        ("middle", "png", [(SIZE, SIZE)]),
        ("sheet", "jpeg", [(2 * SIZE, 2 * SIZE)]),
        ("frames", "png", [(SIZE, SIZE)] * 4),
    ],
)
def test_the_request_holds_the_pictures_of_the_grid(
    server: Server, view: str, image_format: str, shapes: list[tuple[int, int]]
) -> None:
    engine, _ = engine_for(server, view=view, image_format=image_format)
    engine.measure([sample(2)])
    body = server.requests[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("vlm", 0, 256)
    urls = [part["image_url"]["url"] for part in body["messages"][0]["content"][:-1]]
    assert all(url.startswith(f"data:image/{image_format};base64,") for url in urls)
    assert [Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).size for url in urls] == shapes
    assert server.faults == []


def test_large_pictures_are_scaled_down(server: Server) -> None:
    engine, _ = engine_for(server, view="sheet", picture_size=100, image_format="png")
    engine.measure([sample(2)])
    url = server.requests[0]["messages"][0]["content"][0]["image_url"]["url"]
    assert Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).size == (100, 100)


def test_the_key_comes_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTION_KEY", "secret")
    engine, _ = engine_for(server, api_key_env="CAPTION_KEY")
    engine.measure([sample(0)])
    assert {h["Authorization"] for h in server.headers} == {"Bearer secret"}
    monkeypatch.delenv("CAPTION_KEY")
    with pytest.raises(ValueError, match=r"the environment variable CAPTION_KEY \(api_key_env\) is not set"):
        engine.setup("cpu")


def test_no_key_no_header(server: Server) -> None:
    engine, _ = engine_for(server)
    engine.measure([sample(0)])
    assert not any("Authorization" in h for h in server.headers)


def test_garbage_instead_of_json_is_tried_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = server.answer

    def broken(path: str, body: dict[str, Any]) -> tuple[int, str]:
        status, text = answer(path, body)
        first, second = len(server.seen) == 1, len(server.seen) == 2
        return status, "<html>" if first else "[]" if second else text

    monkeypatch.setattr(server, "answer", broken)
    engine, slept = engine_for(server)
    assert texts(engine.measure([sample(4)])) == [right(4)]
    assert len(slept) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"base_url": "localhost:8000", "model": "m"}, "expected an address that begins with http:// or https://"),
        ({"base_url": "http://h/v1", "model": "m", "view": "video"}, "expected middle, sheet or frames"),
        ({"base_url": "http://h/v1", "model": ""}, "at least 1 character"),
        ({"base_url": "http://h/v1", "model": "m", "tokens": 3}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_parameters_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OpenAIParams(**given)


def test_version_names_what_the_text_depends_on() -> None:
    engine = OpenAICaption(OpenAIParams(base_url="http://h/v1/", model="m"), FrameSpec())
    assert engine.version().startswith("prompts 2, pillow ")
    assert OpenAIParams.operational <= set(OpenAIParams.model_fields)
