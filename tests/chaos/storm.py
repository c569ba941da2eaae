"""A seeded storm over real runs: `python -m tests.chaos.storm --minutes 5 --seed 1`, or `make chaos`.

Each round is a run into a new output folder, by turns on a small disk and on S3, on a Ray cluster of two nodes. While
it runs, workers, decoders, the driver and a node are killed, the disk is filled and S3 fails; between runs shards are
damaged. The run is started again whenever it has ended, after the last fault once more, then left alone: its outputs
must equal an undisturbed run's byte for byte, and every clip be kept, rejected or failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import yaml
from ray.cluster_utils import Cluster

from curation.run import main as run_main
from manifests.storage import Place, Remote, place
from tests.chaos import engines
from tests.chaos.weather import NODE, full, weather
from tests.curation.fakes import ROOT
from tests.curation.test_interruption import descendants
from tests.curation.test_storage import files
from tests.faulty_s3 import Fault, FaultyS3

FAULTS = {
    "worker": "workers (Ray actors) killed",
    "decoder": "decoders killed",
    "driver": "drivers killed",
    "node": "nodes lost",
    "shard": "shards damaged",
    "disk": "spells of a full disk",
    "s3": "spells of a failing S3",
}
KINDS = {"disk": ("worker", "decoder", "driver", "node", "shard", "disk"),
         "s3": ("worker", "decoder", "driver", "node", "shard", "s3")}  # fmt: skip
TARGETS = {"worker": b"ray::_StageActor", "decoder": b"stages.decode_child"}
WAIT_S = 300.0  # for what comes at once on a quiet machine


class Storm:
    """survived: faults by kind. runs: how often a driver was started."""

    def __init__(self, seed: int, folder: Path, cluster: Cluster, s3: FaultyS3, disk: Path | None) -> None:
        self.rng = random.Random(seed)
        self.folder = folder
        self.cluster = cluster
        self.s3 = s3
        self.disk = disk
        self.survived: Counter[str] = Counter()
        self.runs = 0
        engines.install()
        engines.write_clips(folder / "clips")
        for path in (folder / "clips").iterdir():
            Remote(f"s3://bucket/clips/{path.name}").upload(path)
        self.roots = {"disk": str(folder / "clips"), "s3": "s3://bucket/clips"}
        self.expected = {kind: self._undisturbed(kind) for kind in KINDS}

    def _config(self, kind: str, output: str) -> Path:
        path = self.folder / "sources.yaml"
        path.write_text(yaml.safe_dump(engines.config(self.roots[kind], output, self.folder / "cache")))
        return path

    def _undisturbed(self, kind: str) -> dict[str, bytes]:
        output = self.folder / f"undisturbed-{kind}"
        assert run_main([str(self._config(kind, str(output))), "--runner", "in-process"]) == 0
        return files(output)

    def round(self, kind: str, number: int) -> None:
        """One output folder, from nothing to outputs that are right. Raises AssertionError when they are not."""
        local = self.disk or self.folder
        output = place(str(local / f"out-{number}") if kind == "disk" else f"s3://bucket/out-{number}")
        self.config = self._config(kind, str(output))
        self.process = self._start()
        faults = [fault for fault in KINDS[kind] if fault != "disk" or self.disk]
        faults += self.rng.choices(faults, k=2)
        self.rng.shuffle(faults)
        for fault in faults:
            self._restore_node()
            self._sleep(self.rng.uniform(0.5, 3.0))
            while not self._inflict(fault, output):  # the run ended before there was anything to disturb
                self._end()
                self._damage(output, "measurements")
                self.process = self._start()
            if self.process.poll() is not None:
                self._end()
                self.process = self._start()
        self._restore_node()
        if self.process.wait(WAIT_S) != 0:
            self._end()
        self.process = self._start()
        assert self.process.wait(WAIT_S) == 0, self._log()[-4000:]
        found = files(output)
        assert found.keys() == self.expected[kind].keys()
        assert [name for name in found if found[name] != self.expected[kind][name]] == []
        summary = json.loads((output / "summary.json").read_text())
        assert summary["inputs"] == summary["kept"] + summary["rejected"] + summary["failed"] == engines.CLIPS + 5
        assert min(summary["kept"], summary["rejected"], summary["failed"]) > 0
        if self.disk and isinstance(output, Path):
            subprocess.run(["rm", "-r", str(output)], check=True)

    def _start(self) -> subprocess.Popen[bytes]:
        self.runs += 1
        command = [sys.executable, "-m", "tests.curation.driver", "tests.chaos.engines", self.cluster.address]
        with (self.folder / "driver.log").open("wb") as log:
            return subprocess.Popen([*command, str(self.config)], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)

    def _log(self) -> str:
        return (self.folder / "driver.log").read_text(errors="replace")

    def _end(self) -> None:
        """The driver has ended: well, killed by the storm, or with one line that says why."""
        code, said = self.process.wait(WAIT_S), self._log()
        assert code in (0, 1, -signal.SIGKILL), said[-4000:]
        assert "Traceback" not in said, said[said.index("Traceback") :][:4000]
        assert code != 1 or "stopped: " in said, said[-4000:]

    def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)

    def _inflict(self, fault: str, output: Place) -> bool:
        """Whether there was something to disturb."""
        if fault in TARGETS:
            pid = self._find(TARGETS[fault])
            if pid is None:
                return False
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        elif fault == "shard":
            while self.process.poll() is None and not any(measured(output)):
                self._sleep(0.2)
            if self.process.poll() is None:
                self.process.kill()
                self.survived["driver"] += 1
            self._end()
            return self._damage(output, self.rng.choice(["measurements", "measurements", "manifests", "rejected"]))
        elif self.process.poll() is not None:
            return False
        elif fault == "driver":
            self.process.kill()
            self.process.wait()
        elif fault == "node":
            self.cluster.remove_node(self.rng.choice(list(self.cluster.worker_nodes)), allow_graceful=False)
        elif fault == "disk":
            assert self.disk is not None
            with full(self.disk):
                self._sleep(self.rng.uniform(2, 6))
        elif fault == "s3":
            rng = random.Random(self.rng.random())
            kinds = [Fault("500"), Fault("503"), Fault("slow", 1.0), Fault("cut"), Fault("reset")]
            failed = self.s3.faults.total()
            self.s3.plan = lambda method, path: rng.choice(kinds) if rng.random() < 0.3 else None
            self._sleep(self.rng.uniform(4, 8))
            while self.process.poll() is None and self.s3.faults.total() == failed:
                self._sleep(0.2)  # nobody has noticed the spell yet
            self.s3.plan = lambda method, path: None
            if self.s3.faults.total() == failed:
                return False
        self.survived[fault] += 1
        return True

    def _find(self, name: bytes) -> int | None:
        """One of the cluster's processes of this kind; None when the run ends before there is one."""
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until and self.process.poll() is None:
            found = []
            for pid in descendants(os.getpid()):
                with contextlib.suppress(OSError):
                    if name in Path(f"/proc/{pid}/cmdline").read_bytes():
                        found.append(pid)
            if found:
                return self.rng.choice(found)
            time.sleep(0.1)
        return None

    def _restore_node(self) -> None:
        if not self.cluster.worker_nodes:
            self.cluster.add_node(**NODE)

    def _damage(self, output: Place, below: str) -> bool:
        """Cut short or turn bits of a shard of this folder, else of the measurements; whether there was one."""
        shards = list(parquet(output / below)) or list(measured(output))
        if not shards:
            return False
        shard = self.rng.choice(shards)
        content = bytearray(shard.read_bytes())
        if self.rng.random() < 0.5:
            del content[self.rng.randrange(len(content)) :]
        else:
            for at in self.rng.choices(range(len(content)), k=3):
                content[at] ^= 1 << self.rng.randrange(8)
        if isinstance(shard, Path):
            shard.write_bytes(content)
        else:
            (self.folder / "shard").write_bytes(content)
            shard.upload(self.folder / "shard")
        self.survived["shard"] += 1
        return True


def parquet(folder: Place) -> Iterator[Place]:
    """The shards at any depth."""
    if isinstance(folder, Path):
        yield from sorted(folder.rglob("*.parquet"))
        return
    with contextlib.suppress(FileNotFoundError):
        for entry in folder.entries():
            if entry.is_folder:
                yield from parquet(folder / entry.name)
            elif entry.name.endswith(".parquet"):
                yield folder / entry.name


def measured(output: Place) -> Iterator[Place]:
    """The shards of what the stages measured."""
    return (shard for shard in parquet(output / "measurements") if "/listing/" not in str(shard))


def main(argv: list[str] | None = None, out: IO[str] = sys.stdout) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.storm", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="no new round begins after these; two at least")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name, weather(Path(name)) as (cluster, s3, disk):
        storm = Storm(args.seed, Path(name), cluster, s3, disk)
        began, rounds = time.monotonic(), 0
        while rounds < 2 or time.monotonic() - began < 60 * args.minutes:
            storm.round(("disk", "s3")[rounds % 2], rounds)
            rounds += 1
            seconds = time.monotonic() - began
            survived = f"{storm.survived.total()} faults survived"
            print(f"{rounds} rounds, {storm.runs} starts, {seconds:.0f} s; {survived}", file=out, flush=True)
        print(f"seed {args.seed}: each round ended with the bytes of an undisturbed run, after", file=out)
        for kind, what in FAULTS.items():
            print(f"{storm.survived[kind]:>6} {what}", file=out)
        for kind, count in sorted(s3.faults.items()):
            print(f"{count:>6} answers of S3: {kind}", file=out)
        if disk is None:
            print("the disk was not filled: only root can mount a small one", file=out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
