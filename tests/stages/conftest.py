"""Fixtures of several tests of stages: a decoder, and a sound file to decode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.decode import Decoder
from tests.media import write_video


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(20) as decoder:
        yield decoder


@pytest.fixture(scope="module")
def sound_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("sound") / "sound.mp4", codec_options={"g": "25"})
