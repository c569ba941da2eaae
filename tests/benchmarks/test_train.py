"""The benchmark of the trainer, at a tiny size: a line for each part, and what a step waits for its clips."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.conftest import TINY, make_run


@pytest.mark.slow
def test_each_part_has_its_time_and_memory_and_trains_more_than_the_part_before(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    settings = [part for setting in TINY for part in ("--set", setting)]
    command = [sys.executable, "-m", "benchmarks.train", "--steps", "1", *settings]
    # The made-up batches have 16 frames, and the clips here 4.
    command += ["--manifest", str(make_run(tmp_path))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    rows = re.findall(r"^(\S.*?) +(\d+\.\d+) s +(\d+\.\d+) GiB +(\d+\.\d+) M trained$", said, re.MULTILINE)
    assert [name for name, *_ in rows] == [
        "bare diffusers loop",
        "+ identity branch, encoders",
        "+ motion blocks",
        "+ L_R",
        "+ L_id, t >= t_max (most steps)",
        "+ L_id, on every sample",
    ]
    assert all(float(seconds) > 0 and float(gib) > 0 for _, seconds, gib, _ in rows)
    trained = [float(millions) for *_, millions in rows]
    assert trained == sorted(trained)
    assert trained[0] < trained[2] == trained[5]
    waits = re.findall(
        r"^a step on clips, (\S.*?) +(\d+\.\d+) s, (\d+\.\d+) s of it waiting for data$", said, re.MULTILINE
    )
    assert [name for name, *_ in waits] == ["no cache", "cache, filling", "cache"]
    assert all(float(wait) < float(step) for _, step, wait in waits)
