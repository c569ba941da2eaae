"""Joining a Ray cluster: one that is named, one on record, and those that have died."""

import os
import socket
from pathlib import Path

import pytest
import ray

from curation.cluster import connect, shutdown
from curation.errors import Stopped


@pytest.fixture
def dead() -> str:
    """An address where nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


def test_a_named_cluster_that_does_not_answer_stops_the_run_at_once(dead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", dead)
    with pytest.raises(Stopped, match=f"^no Ray cluster answers at RAY_ADDRESS={dead}: start it, or unset"):
        connect()


def test_the_record_of_a_cluster_that_has_died_is_passed_over(dead: str, capsys: pytest.CaptureFixture[str]) -> None:
    record = Path(os.environ["RAY_TMPDIR"], "ray", "ray_current_cluster")
    record.parent.mkdir(exist_ok=True)
    record.write_text(dead)
    try:
        connect()
        assert ray.get_runtime_context().gcs_address != dead
        assert record.read_text() == dead
    finally:
        shutdown()
        record.unlink()
    assert capsys.readouterr().err == f"no Ray cluster answers at {dead}, as {record} says: this run starts its own\n"
