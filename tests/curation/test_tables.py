"""Many clips are joined part by part: the same rows and bytes as of few, and nothing is left on disk."""

import random
from pathlib import Path

import numpy as np
import pytest

from curation import tables, verdicts
from curation.outputs import write_outputs
from curation.tasks import count_pending, pending_tasks
from tests.curation.made import Made, clip, config, random_changes

COUNT = 300


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Clips of all fates with embeddings, some measured again, some copies, some half measured."""
    rng, numbers = random.Random(0), np.random.default_rng(0)
    made = Made(config(tmp_path, mix={"s": 100}))
    clips = [clip(f"{i}.mp4") for i in range(COUNT)]
    made.listing(clips)
    words = numbers.integers(0, 2**64, (COUNT, 5), dtype=np.uint64)
    words[1::10] = words[::10]
    faces = numbers.normal(size=(COUNT, 8))
    faces /= np.linalg.norm(faces, axis=1, keepdims=True)
    for i, one in enumerate(clips):
        changes = random_changes(rng) if i % 3 == 2 and i % 50 != 49 else {}
        changes["hash"] = {"frame_hash": words[i].tolist()}
        face = faces[i - (i % 10 == 1)].tolist()
        changes["embedding"] = {"frame_embedding": face}
        changes.setdefault("face", {})
        if "error" not in changes["face"]:
            changes["face"]["face_embedding"] = face
        made.measure(one, ["header", "decode"] if i % 50 == 49 else list(made.engines), **changes)
        if i % 40 == 0:
            made.recorder.flush()
            made.measure(one, quality={"quality_score": 0.01})
    return made


def outputs(made: Made) -> dict[str, bytes]:
    with made.read() as measurements:
        decision = write_outputs(made.config, made.engines, measurements)
    assert decision.status["kept"] > 50
    assert decision.status["to_measure"] == COUNT // 50
    assert {"duplicate", "over_mix", "quality"} <= set(decision.reasons)
    return {str(p): p.read_bytes() for p in sorted(made.output.glob("*/part-*.parquet"))}


def test_the_bytes_do_not_depend_on_the_parts(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = outputs(made)
    before = sorted(made.output.rglob("*"))
    monkeypatch.setattr(tables, "PART", 100)
    monkeypatch.setattr(verdicts, "NARROW_PART", 200)
    assert outputs(made) == expected
    assert sorted(made.output.rglob("*")) == before


def test_what_is_left_to_measure_is_found_in_all_parts_in_order(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    with made.read() as measurements:
        expected = list(pending_tasks(measurements))
    assert len(expected) == COUNT // 50
    assert [task.clip.clip_id for task in expected] == sorted(task.clip.clip_id for task in expected)
    assert all(set(task.known) == {"header", "decode"} for task in expected)
    monkeypatch.setattr(tables, "PART", 100)
    with made.read() as measurements:
        assert list(pending_tasks(measurements)) == expected
        assert count_pending(measurements) == len(expected)


def test_the_parts_are_all_ids_once_and_in_order(made: Made) -> None:
    with made.read() as measurements:
        for largest in (1, 7, 100, 299, 300):
            found: list[str] = []
            for within in measurements.ranges(largest):
                found += [row[0] for row in measurements.rows(f"SELECT clip_id FROM listing WHERE {within} ORDER BY 1")]
            assert found == sorted(found)
            assert len(found) == COUNT
