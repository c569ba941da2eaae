"""Captions from a server that speaks OpenAI's chat completions, such as vLLM's, llama.cpp's or a hosted one.

The requests of all clips of a batch run at once, bounded by `concurrency`. Each clip leads its own dialogue and keeps
its own result, so that the order in which answers come, and how often a request is repeated, cannot mix clips up.
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from stages.base import ClipError, Measured, Needs, Params, Sample
from stages.caption_text import TEXT_VERSION, AskParams, View, advance, dialogue, pictures, scene
from stages.frames import FrameSpec

if TYPE_CHECKING:
    import aiohttp

# A client error of these is about the server or the key, not about the clip: the next run tries the clip again.
NOT_THE_CLIPS_FAULT = frozenset({401, 403, 404})
MAX_RETRY_AFTER_S = 60.0


class OpenAIParams(AskParams):
    """Where the server is, what it is asked, and how patiently.

    base_url: up to and without "/chat/completions", for example http://localhost:8000/v1.
    api_key_env: name of the environment variable that holds the key; None for servers that take none.
    view: "video" is not part of the protocol.
    picture_size: the longer side of each picture sent, pixels; larger ones are scaled down.
    concurrency: requests at once from one worker.
    deadline_s: of one request, from connecting to its last byte.
    attempts: how often one request is tried in all; between them backoff_s, doubled each time, less a random part.
    """

    # How the server is reached does not change what is measured.
    operational: ClassVar[frozenset[str]] = frozenset(
        {"base_url", "api_key_env", "concurrency", "deadline_s", "attempts", "backoff_s"}
    )

    base_url: str
    model: str = Field(min_length=1)
    api_key_env: str | None = None
    view: View = "sheet"
    image_format: Literal["jpeg", "png"] = "jpeg"
    picture_size: int = Field(768, ge=64, le=4096)
    max_tokens: int = Field(256, ge=16)
    concurrency: int = Field(8, ge=1, le=1024)
    deadline_s: float = Field(60.0, gt=0)
    attempts: int = Field(5, ge=1, le=20)
    backoff_s: float = Field(1.0, ge=0)

    @field_validator("base_url")
    @classmethod
    def _http(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("expected an address that begins with http:// or https://")
        return url.rstrip("/")

    @field_validator("view")
    @classmethod
    def _pictures(cls, view: View) -> View:
        if view == "video":
            raise ValueError("expected middle, sheet or frames: the protocol takes pictures, no video")
        return view


class OpenAICaption:
    """The engine. `sleep` and `random` are attributes so that a test can set its own clock and seed."""

    Params: type[Params] = OpenAIParams
    needs: ClassVar[Needs] = "grid"
    reads: ClassVar[tuple[str, ...]] = ("crop",)

    def __init__(self, params: OpenAIParams, spec: FrameSpec) -> None:
        self._params = params
        self._headers: dict[str, str] = {}
        self.sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
        self.random = random.Random()  # noqa: S311 (spreads retries, keeps no secret)

    def version(self) -> str:
        """The prompts' version and the picture encoder's; the server's model is among the parameters."""
        return f"{TEXT_VERSION}, pillow {version('pillow')}"

    def setup(self, device: str) -> None:
        """Read the key; `device` has no meaning here. Raises ValueError when the key's variable is not set."""
        name = self._params.api_key_env
        if name is not None:
            if not os.environ.get(name):
                raise ValueError(f"caption: the environment variable {name} (api_key_env) is not set")
            self._headers = {"Authorization": f"Bearer {os.environ[name]}"}

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """`caption` and `action` of each sample. A ClipError is transient where another run may fare better."""
        return asyncio.run(self._all(self._one, batch))

    def ask(self, questions: Sequence[list[Any]]) -> list[str | ClipError]:
        """The server's answers; a question is the content of one message, a list of the protocol's parts."""
        return asyncio.run(self._all(self._answered, questions))

    async def _all(self, one: Callable[..., Awaitable[Any]], these: Sequence[Any]) -> list[Any]:
        """`one` of each of these, all at once."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=self._params.deadline_s)
        gate = asyncio.Semaphore(self._params.concurrency)
        # Waiting at the gate does not count against a request's deadline; waiting for the connector's pool would.
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, headers=self._headers, connector=connector) as session:
            return list(await asyncio.gather(*(one(session, gate, this) for this in these)))

    async def _answered(
        self, session: aiohttp.ClientSession, gate: asyncio.Semaphore, content: list[Any]
    ) -> str | ClipError:
        try:
            return await self._ask(session, gate, content)
        except ClipError as error:
            return error

    async def _one(
        self, session: aiohttp.ClientSession, gate: asyncio.Semaphore, sample: Sample
    ) -> Measured | ClipError:
        grid = sample.grid()
        shown = [
            {"type": "image_url", "image_url": {"url": self.data_url(picture)}}
            for picture in pictures(grid, self._params)
        ]
        talk = dialogue(scene(grid, self._params), self._params.retries, sample.columns.get("caption"))
        state = advance(talk, None)
        try:
            while isinstance(state, str):
                content = [*shown, {"type": "text", "text": state}]
                state = advance(talk, await self._ask(session, gate, content))
        except ClipError as error:
            return error
        return state

    async def _ask(self, session: aiohttp.ClientSession, gate: asyncio.Semaphore, content: list[Any]) -> str:
        """The server's answer to one question. Raises ClipError after the last attempt, or at once for a request that
        the server refuses."""
        import aiohttp

        params = self._params
        body = {
            "model": params.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": params.max_tokens,
            "temperature": 0,
        }
        problem = ""
        for attempt in range(params.attempts):
            wait = params.backoff_s * 2**attempt * self.random.uniform(0.5, 1.0)
            try:
                async with gate, session.post(f"{params.base_url}/chat/completions", json=body) as response:
                    if response.status == 200:
                        return _answer(await response.json(content_type=None))
                    problem = f"{response.status} {response.reason}: {' '.join((await response.text()).split())[:200]}"
                    if 400 <= response.status < 500 and response.status not in (408, 429):
                        raise ClipError(
                            f"caption server refused the request: {problem}", response.status in NOT_THE_CLIPS_FAULT
                        )
                    wait = max(wait, _retry_after(response.headers.get("Retry-After")))
            except TimeoutError:
                problem = f"no answer within {params.deadline_s:g} s"
            except (
                aiohttp.ClientError,
                ValueError,
            ) as error:  # broken connections; answers that are not what was asked
                problem = f"{type(error).__name__}: {error}"
            if attempt + 1 < params.attempts:
                await self.sleep(wait)
        raise ClipError(f"caption server failed {params.attempts} times, at last with {problem}", transient=True)

    def data_url(self, picture: np.ndarray) -> str:
        """The picture (h, w, 3), uint8 RGB, as a data URL, its longer side at most `picture_size`."""
        from PIL import Image

        image = Image.fromarray(picture)
        image.thumbnail((self._params.picture_size, self._params.picture_size), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, self._params.image_format, quality=90)
        return f"data:image/{self._params.image_format};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _answer(reply: Any) -> str:
    """The text of a chat completion; a message without text (a filtered one) is an empty, hence unusable, answer.
    Raises ValueError for anything that is no chat completion."""
    try:
        content = reply["choices"][0]["message"].get("content")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError(f"not a chat completion: {str(reply)[:200]}") from None
    return content if isinstance(content, str) else ""


def _retry_after(value: str | None) -> float:
    """The seconds a server asks to wait, 0 where it does not say so in seconds."""
    return min(float(value), MAX_RETRY_AFTER_S) if value is not None and value.isdecimal() else 0.0
