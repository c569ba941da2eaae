"""Fixtures that several packages' tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips, stills and weights beside the project; tests that need it skip where it is absent."""
    path = Path(os.environ.get("HUMAN_MOTION_SHARED", ROOT.parent / "shared"))
    if not (path / "clips").is_dir():
        pytest.skip(f"no real clips at {path}: set HUMAN_MOTION_SHARED")
    return path
