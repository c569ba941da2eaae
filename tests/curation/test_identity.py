"""Clips of the same face get one identity, whatever the batches are."""

import numpy as np
import pyarrow as pa
import pytest

from curation import identity
from curation.identity import identities


def batches(vectors: np.ndarray, size: int) -> list[pa.RecordBatch]:
    ids = [f"{i:032x}" for i in range(len(vectors))]
    table = pa.table({"clip_id": ids, "face_embedding": pa.array(list(vectors), pa.list_(pa.float32()))})
    return table.to_batches(max_chunksize=size)


def people(count: int, clips: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings of `clips` clips of `count` people, and whose each is."""
    rng = np.random.default_rng(0)
    faces = rng.normal(size=(count, 512))
    whose = rng.integers(0, count, clips)
    vectors = faces[whose] + noise * rng.normal(size=(clips, 512))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), whose


@pytest.mark.parametrize("size", [1, 7, 5000])
def test_one_identity_a_person_named_after_the_first_clip(size: int) -> None:
    vectors, whose = people(count=40, clips=300, noise=0.5)
    found = identities(batches(vectors, size))
    assert found["clip_id"].to_pylist() == [f"{i:032x}" for i in range(300)]
    first = {person: f"{int(np.flatnonzero(whose == person)[0]):032x}" for person in set(whose.tolist())}
    assert found["identity"].to_pylist() == [first[person] for person in whose.tolist()]


def test_the_threshold_is_where_it_says() -> None:
    def pair(cosine: float) -> np.ndarray:
        return np.array([[1, 0], [cosine, np.sqrt(1 - cosine**2)]])

    a, b = "0" * 32, "0" * 31 + "1"
    assert identities(batches(pair(0.41), 2))["identity"].to_pylist() == [a, a]
    assert identities(batches(pair(0.39), 2))["identity"].to_pylist() == [a, b]


def test_more_identities_than_first_reserved() -> None:
    found = identities(batches(np.eye(1500, dtype=np.float32), 1000))
    assert len(set(found["identity"].to_pylist())) == 1500


def test_nothing_gives_nothing() -> None:
    assert identities([]).num_rows == 0


@pytest.mark.parametrize("size", [1, 50, 400])
def test_each_clip_joins_the_most_alike_of_those_before_it(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faces so noisy that many identities are near; compared in blocks, the answer is that of one after the other."""
    monkeypatch.setattr(identity, "BLOCK", 16)
    vectors, _ = people(count=60, clips=400, noise=1.3)
    first: list[int] = []
    expected = []
    for i, vector in enumerate(vectors):
        cosines = vectors[first] @ vector
        if not len(cosines) or cosines.max() < 0.4:
            first.append(i)
        expected.append(f"{i if first[-1] == i else first[int(cosines.argmax())]:032x}")
    assert 60 < len(first) < 300
    assert identities(batches(vectors, size))["identity"].to_pylist() == expected
