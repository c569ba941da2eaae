"""Runs whose sources and output lie on S3: the outputs of a local run, byte for byte, whatever the server does."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from curation.cluster import shutdown
from curation.decide import main as decide_main
from curation.run import main
from manifests.shards import read_manifest
from manifests.storage import Place, Remote
from tests.curation import fakes
from tests.faulty_s3 import Fault, FaultyS3

NAMES = ["a-1.mp4", "b-2.mp4", "c-3.mp4", "deep/d-4.mp4", "raise-5.mp4", "q?x=1#%41 é-6.mp4"]


@pytest.fixture(autouse=True)
def fake_engines() -> None:
    fakes.install()


@pytest.fixture
def clips(tmp_path: Path, bucket: Remote) -> Remote:
    """The same clips in a folder and on S3."""
    (tmp_path / "clips" / "deep").mkdir(parents=True)
    fakes.write_clips(tmp_path / "clips", *NAMES)
    (tmp_path / "clips" / "notes.txt").write_text("x")
    for path in (tmp_path / "clips").rglob("*.*"):
        (bucket / "clips" / str(path.relative_to(tmp_path / "clips"))).upload(path)
    return bucket / "clips"


def curate(folder: Path, root: Place, output: Place, *options: str, **changes: Any) -> int:
    raw: dict[str, Any] = {
        "output": str(output),
        "sources": [{"name": "s", "kind": "folder", "root": str(root)}],
        "stages": fakes.STAGES,
        "frames": fakes.FRAMES,
        "thresholds": {"min_side": 64, **fakes.THRESHOLDS},
        "execution": {"max_failed_fraction": 1.0, "deadline_s": 30},
        "storage": {"cache": str(folder / "cache")},
    }
    path = folder / "sources.yaml"
    path.write_text(yaml.safe_dump(raw | changes))
    return main([str(path), *options])


def files(place: Place) -> dict[str, bytes]:
    """What lies under manifests, rejected and flows, whose bytes depend on the clips alone; not on where they lie."""

    def below(folder: Place, inside: str) -> Iterator[tuple[str, bytes]]:
        if isinstance(folder, Path):
            yield from ((str(p.relative_to(place)), p.read_bytes()) for p in folder.rglob("*") if p.is_file())  # type: ignore[arg-type]
            return
        for entry in folder.entries():
            if entry.is_folder:
                yield from below(folder / entry.name, f"{inside}/{entry.name}")
            else:
                yield f"{inside}/{entry.name}", (folder / entry.name).read_bytes()

    return dict(pair for name in ("manifests", "rejected", "flows") for pair in below(place / name, name))


def flaky(every: int = 4) -> "Any":
    """A plan: each n-th request fails, in turn by 500, 503, a cut answer and a closed connection."""
    asked = [0]

    def plan(method: str, path: str) -> Fault | None:
        asked[0] += 1
        kinds = ("500", "503", "cut", "reset")
        return Fault(kinds[asked[0] // every % 4]) if asked[0] % every == 0 else None

    return plan


def same(one: dict[str, bytes], two: dict[str, bytes], tmp_path: Path) -> None:
    """Equal but for the roots in the Parquet metadata, which say where the source lay."""
    assert list(one) == list(two) or set(one) == set(two)
    for name in one:
        if name.startswith("flows"):
            assert one[name] == two[name], name


def test_a_run_on_s3_that_misbehaves_ends_as_a_local_one(
    tmp_path: Path, s3: FaultyS3, bucket: Remote, clips: Remote
) -> None:
    out = bucket / "out"
    assert curate(tmp_path, tmp_path / "clips", tmp_path / "out", "--runner", "in-process") == 0
    # The same source on disk, the output on S3: equal to the last byte.
    assert curate(tmp_path, tmp_path / "clips", bucket / "copy", "--runner", "in-process") == 0
    assert files(bucket / "copy") == files(tmp_path / "out")
    s3.plan = flaky()
    assert curate(tmp_path, clips, out, "--runner", "in-process") == 0
    assert {kind for kind, count in s3.faults.items() if count} == {"500", "503", "cut", "reset"}
    s3.plan = lambda method, path: None
    same(files(out), files(tmp_path / "out"), tmp_path)
    for folder in ("manifests", "rejected"):
        on_s3, local = read_manifest(out / folder), read_manifest(tmp_path / "out" / folder)
        assert on_s3.to_pylist() == local.to_pylist()
        assert on_s3.schema.remove_metadata() == local.schema.remove_metadata()
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["inputs"], summary["kept"], summary["failed"]) == (6, 5, 1)
    assert summary["ignored_files"] == {"txt": 1}
    assert not (out / "measurements/.lock").exists()
    # Nothing is measured again; deciding again works there too.
    assert curate(tmp_path, clips, out, "--runner", "in-process") == 0
    assert json.loads((out / "summary.json").read_text())["run"]["clips_measured"] == 0
    assert decide_main([str(out), "--set", "thresholds.min_quality=0.6"]) == 0
    assert read_manifest(out).num_rows == 0


def test_a_changed_object_is_measured_anew_and_a_vanished_one_fails(
    tmp_path: Path, s3: FaultyS3, bucket: Remote, clips: Remote
) -> None:
    out = bucket / "out"
    gone = clips / "a-1.mp4"

    def plan(method: str, path: str) -> Fault | None:
        return Fault("404") if path.startswith("/bucket/clips/a-1.mp4") else None

    s3.plan = plan
    assert curate(tmp_path, clips, out, "--runner", "in-process") == 0
    failed = {r["path"]: (r["stage"], r["error"]) for r in read_manifest(out / "rejected").to_pylist()}
    assert failed["a-1.mp4"] == ("header", "does not exist")
    s3.plan = lambda method, path: None
    fakes.write_clips(tmp_path / "new", "a-1.mp4")
    with (tmp_path / "new" / "a-1.mp4").open("ab") as file:
        file.write(b"\0")
    gone.upload(tmp_path / "new" / "a-1.mp4")
    assert curate(tmp_path, clips, out, "--runner", "in-process") == 0
    assert json.loads((out / "summary.json").read_text())["run"]["clips_measured"] == 1
    assert "a-1.mp4" in read_manifest(out)["path"].to_pylist()


def test_what_cannot_be_used_is_one_line(
    tmp_path: Path, s3: FaultyS3, bucket: Remote, capsys: pytest.CaptureFixture[str]
) -> None:
    assert curate(tmp_path, bucket / "nowhere", tmp_path / "out") == 2
    assert capsys.readouterr().err.endswith("sources.0.root: no such folder: s3://bucket/nowhere\n")
    s3.plan = lambda method, path: Fault("403")
    assert curate(tmp_path, bucket / "clips", tmp_path / "out") == 2
    assert "sources.0.root: s3://bucket/clips cannot be reached: " in capsys.readouterr().err
    assert decide_main(["nowhere://a"]) == 2
    assert capsys.readouterr().err == "nowhere://a: unknown scheme nowhere\n"


@pytest.mark.slow
def test_a_run_on_ray_reads_and_writes_s3(tmp_path: Path, s3: FaultyS3, bucket: Remote, clips: Remote) -> None:
    assert curate(tmp_path, clips, bucket / "one", "--runner", "in-process") == 0
    ray.init(
        num_cpus=2, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR,
        runtime_env=fakes.RUNTIME_ENV,
    )  # fmt: skip
    try:
        s3.plan = flaky(every=7)
        assert curate(tmp_path, clips, bucket / "two") == 0
    finally:
        shutdown()
    s3.plan = lambda method, path: None
    assert files(bucket / "one") == files(bucket / "two")
    assert len(files(bucket / "two")) == 2 + 5
