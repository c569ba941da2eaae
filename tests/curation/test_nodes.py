"""Runs on a cluster of several nodes, by Ray's own test cluster on this machine: nodes go and come while clips are in
work, and the outputs are those of one node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from stages import text
from stages.base import ClipError, Measured, Sample
from tests.curation import fakes
from tests.curation.made import GOOD
from tests.curation.test_runners import MIXED, curate, ends, shards

NOTES = "HUMAN_MOTION_TEST_NOTES"
MEMORY = 200 * 2**20  # of a node's object store
STAGES = list(GOOD)
POOLS = [
    {"stages": STAGES[:3], "cpus": 0.5, "batch": 2},
    {"stages": STAGES[3:6], "cpus": 0.5, "batch": 2},
    {"stages": STAGES[6:], "cpus": 0.5},
]


class SlowText(fakes.FakeText):
    """On Ray it takes its time, notes on which node, and waits for nodes that are to do something too."""

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        if ray.is_initialized():
            time.sleep(0.3 * len(batch))
            notes = Path(os.environ[NOTES])
            (notes / ray.get_runtime_context().get_node_id()).touch()
            until = time.monotonic() + 90
            while time.monotonic() < until and not all((notes / w.stem).exists() for w in notes.glob("*.wanted")):
                time.sleep(0.1)
        return super().measure(batch)


def install() -> None:
    """Register the engines, in this process or in a Ray worker."""
    fakes.install()
    text.STAGE.engines["fake"] = SlowText


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Names of the nodes that measured something."""
    folder = tmp_path / "notes"
    folder.mkdir()
    monkeypatch.setenv(NOTES, str(folder))
    return folder


@pytest.fixture
def cluster(notes: Path) -> Iterator[Cluster]:
    """Three nodes of one CPU; a driver joins the first."""
    install()
    head = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    yield cluster
    cluster.shutdown()


class Run:
    """A run on the cluster, in a process of its own."""

    def __init__(self, folder: Path, cluster: Cluster, **changes: Any) -> None:
        self.output = folder / "several"
        assert curate(folder, "--dry-run", output="several", **changes) == 0  # writes the configuration
        command = [sys.executable, "-m", "tests.curation.driver", __name__, cluster.address, "sources.yaml"]
        command[-1] = str(folder / "sources.yaml")
        self.process = subprocess.Popen(command, cwd=fakes.ROOT)

    def wait_for(self, clips: int) -> None:
        """Until so many clips have been measured, and more are in work."""
        until = time.monotonic() + 120
        while len(list(self.output.glob("flows/*/*/*.npz"))) < clips:
            assert time.monotonic() < until
            assert self.process.poll() is None
            time.sleep(0.05)


@pytest.mark.slow
def test_nodes_that_go_and_come_leave_the_same_bytes(tmp_path: Path, cluster: Cluster, notes: Path) -> None:
    fakes.write_clips(tmp_path / "clips", *MIXED, *[f"more-{i}.mp4" for i in range(7, 40)])
    assert curate(tmp_path, "--runner", "in-process", output="one") == 0
    run = Run(tmp_path, cluster)
    run.wait_for(5)
    gone = next(iter(cluster.worker_nodes))
    cluster.remove_node(gone, allow_graceful=False)
    came = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    (notes / f"{came.node_id}.wanted").touch()
    assert run.process.wait(120) == 0
    assert (notes / gone.node_id).exists()
    assert (notes / came.node_id).exists()
    assert ends(run.output) == ends(tmp_path / "one")
    assert shards(run.output) == shards(tmp_path / "one")


@pytest.mark.slow
def test_frames_that_went_with_their_node_are_decoded_again(tmp_path: Path, cluster: Cluster) -> None:
    """Three pools that hand frames on; the nodes of two of the actors go, one after the other."""
    fakes.write_clips(tmp_path / "clips", *MIXED, *[f"more-{i}.mp4" for i in range(7, 40)])
    frames = {"size": 256}  # so large that they lie in the node's object store
    assert curate(tmp_path, "--runner", "in-process", output="one", frames=frames) == 0
    run = Run(tmp_path, cluster, frames=frames, execution={"groups": POOLS})
    for clips, node in zip((5, 10), list(cluster.worker_nodes), strict=True):
        run.wait_for(clips)
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    assert run.process.wait(120) == 0
    assert ends(run.output) == ends(tmp_path / "one")
    assert shards(run.output) == shards(tmp_path / "one")
    summary = json.loads((run.output / "summary.json").read_text())
    assert summary["inputs"] == summary["kept"] + summary["rejected"] + summary["failed"] == 39
