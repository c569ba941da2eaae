"""Two runs on one output: the second is refused, a dead one's lock is taken over; on disk and on S3."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from curation import lock
from curation.decide import main as decide_main
from curation.errors import Stopped
from curation.lock import acquire, locked, this_process
from curation.names import LOCK
from curation.run import main
from curation.summary import save_config
from manifests.shards import whole
from manifests.storage import Place, Remote
from tests.curation import made
from tests.faulty_s3 import Fault, FaultyS3

ROOT = Path(__file__).resolve().parent.parent.parent
HOLD = (
    "import sys, time; from curation.lock import acquire; from manifests.storage import place\n"
    "held = acquire(place(sys.argv[1]), 'curation.run'); print('held', flush=True); time.sleep(600)"
)


@pytest.fixture(params=["disk", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An output folder, on disk and on S3."""
    if request.param == "disk":
        return tmp_path / "out"
    bucket: Remote = request.getfixturevalue("bucket")
    return bucket / "out"


@pytest.fixture
def other(output: Place) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(output)], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=dict(os.environ)
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_run_is_refused_and_the_first_is_named(output: Place, other: subprocess.Popen[str]) -> None:
    with pytest.raises(Stopped) as refused:
        acquire(output, "curation.run")
    mine = this_process("curation.run")
    assert re.fullmatch(
        re.escape(f"{output} is in use by curation.run of {mine.user} on {mine.host}, process {other.pid}, since ")
        + r"2\d{3}-\d\d-\d\d \d\d:\d\d:\d\d UTC; wait until it ends, or choose another output",
        str(refused.value),
    )


def test_a_killed_holder_on_this_machine_is_taken_over_at_once(
    output: Place, other: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    started = time.monotonic()
    with locked(output, "curation.run"):
        assert json.loads((output / LOCK).read_text())["pid"] == os.getpid()
    assert time.monotonic() - started < lock.BEAT_S
    assert f"process {other.pid}, since" in capsys.readouterr().err
    assert not (output / LOCK).exists()


def test_run_and_decide_are_refused_while_another_holds_the_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = made.config(tmp_path)
    ready = made.Made(config)
    ready.listing([made.clip("a.mp4")])
    ready.measure(made.clip("a.mp4"))
    ready.recorder.flush()
    save_config(ready.output, config, ready.engines)
    path = tmp_path / "sources.yaml"
    path.write_text(f"output: out\nsources: [{{name: s, kind: folder, root: {tmp_path / 'clips'}}}]\n")
    with locked(ready.output, "curation.run"):
        assert main([str(path), "--runner", "in-process"]) == 1
        assert decide_main([str(ready.output)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"stopped: {ready.output} is in use by curation.run of ") for line in lines)
    assert decide_main([str(ready.output)]) == 0


def test_a_holder_elsewhere_counts_as_dead_when_it_was_silent_for_long(
    output: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.2)
    elsewhere = dataclasses.replace(this_process("curation.run"), machine="another", host="node7", pid=1)

    def leave(silent: float) -> None:
        with whole(output / LOCK) as temporary:
            temporary.write_bytes(lock._encode(dataclasses.replace(elsewhere, alive=time.time() - silent)))

    leave(silent=30)
    with pytest.raises(
        Stopped, match=r"on node7, process 1, .*; silent for \d\d s, it counts as dead after 60 s; wait"
    ):
        acquire(output, "curation.run")
    leave(silent=61)
    with locked(output, "curation.run"):
        assert "took over from curation.run of" in capsys.readouterr().err
    # Its clock is an hour behind, but it beats while it is watched: it lives.
    leave(silent=3600)
    clock = SimpleNamespace(time=time.time, sleep=lambda seconds: leave(silent=3599))
    monkeypatch.setattr(lock, "time", clock)
    with pytest.raises(Stopped, match="on node7, process 1"):
        acquire(output, "curation.run")


def test_the_lock_is_kept_alive_and_its_loss_is_noticed(output: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.1)
    held = acquire(output, "curation.run")
    first = json.loads((output / LOCK).read_text())["alive"]
    until = time.monotonic() + 20
    # It is written in place: who looks without the lock's own care may find half of it, which is no holder.
    while (seen := lock._decode((output / LOCK).read_bytes())) is None or seen.alive <= first:
        assert time.monotonic() < until
        time.sleep(0.05)
    held.check()
    usurper = dataclasses.replace(this_process("curation.decide"), host="node7")
    with whole(output / LOCK) as temporary:
        temporary.write_bytes(lock._encode(usurper))
    while held._lost_to is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    with pytest.raises(Stopped, match=r"was taken over by curation.decide of .* on node7"):
        held.check()
    held.release()
    assert json.loads((output / LOCK).read_text())["host"] == "node7"


def test_of_many_that_find_a_dead_lock_one_takes_it(output: Place) -> None:
    dead = dataclasses.replace(this_process("curation.run"), pid=2**22 + 1)
    with whole(output / LOCK) as temporary:
        temporary.write_bytes(lock._encode(dead))
    got: list[lock.Lock] = []
    refused: list[str] = []

    def take() -> None:
        try:
            got.append(acquire(output, "curation.run"))
        except Stopped as error:
            refused.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)
    got[0].release()


def test_an_answer_of_s3_that_was_lost_does_not_lock_the_run_out(s3: FaultyS3, bucket: Remote) -> None:
    lost = [1]

    def plan(method: str, path: str) -> Fault | None:
        if method == "PUT" and lost[0]:
            lost[0] -= 1
            return Fault("cut")  # it is done, and nobody hears of it
        return None

    with whole(bucket / "warm") as temporary:
        temporary.write_text("x")
    s3.plan = plan
    held = acquire(bucket / "out", "curation.run")
    assert s3.faults["cut"] == 1
    held.release()


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "flows" / "f" / "aa" / ".aa.npz.0123.tmp"
    kept = tmp_path / "flows" / "f" / "aa" / "aa.npz"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    kept.write_bytes(b"whole")
    with locked(tmp_path, "curation.run"):
        assert not left.exists()
    assert kept.exists()
