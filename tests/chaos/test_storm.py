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
    from tests.chaos.storm import FAULTS

    command = [sys.executable, "-m", "tests.chaos.storm", "--minutes", "0", "--seed", "7"]
    said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=280).stdout
    report = said[said.index("seed 7: each round ended with the bytes of an undisturbed run, after\n") :]
    counts = {what: int(count) for count, what in re.findall(r"^ *(\d+) (.+)$", report, re.MULTILINE)}
    if os.geteuid() != 0:
        assert counts.pop(FAULTS["disk"]) == 0
    assert set(FAULTS.values()) - set(counts) <= {FAULTS["disk"]}
    assert min(counts.values()) >= 1
    assert any(what.startswith("answers of S3: ") for what in counts)
    assert f"; {sum(counts[what] for what in counts if what in FAULTS.values())} faults survived\nseed 7" in said
