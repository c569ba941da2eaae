"""A short storm; `make chaos` is the long one."""

import os
import re
import subprocess
import sys

import pytest

from tests.curation.fakes import ROOT

pytest.importorskip("moto.server")


@pytest.mark.slow
def test_two_rounds_of_a_storm_end_as_undisturbed_runs() -> None:
    command = [sys.executable, "-m", "tests.chaos.storm", "--minutes", "0", "--seed", "7"]
    said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=280).stdout
    last = [line for line in said.splitlines() if line.startswith("2 rounds")][-1]
    survived = {
        kind: int(count) for count, kind in re.findall(r"(\d+) (worker|decoder|driver|node|disk|s3|shard)\b", last)
    }
    if os.geteuid() != 0:
        assert survived.pop("disk") == 0
    assert len(survived) >= 6
    assert min(survived.values()) >= 1
