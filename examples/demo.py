"""`make demo`: render portrait videos with known motion, curate them, and hold what came out against what is true.

    python -m examples.demo

Exits with 1 when a clip's verdict is not the expected one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

from examples.portraits import write_all

HERE = Path(__file__).resolve().parent
RUNS = HERE.parent / "runs"
INPUT = RUNS / "quickstart-input"
OUTPUT = RUNS / "quickstart"


def verdicts(output: Path) -> dict[str, dict[str, Any]]:
    """Per file of the run's source: its row of manifests/ or rejected/, as pandas reads them."""
    kept = pd.read_parquet(output / "manifests").assign(status="kept", reason=None, error=None)
    rejected = pd.read_parquet(output / "rejected")
    return {row["path"]: row for row in [*kept.to_dict("records"), *rejected.to_dict("records")]}


def compare(truth: dict[str, dict[str, Any]], found: dict[str, dict[str, Any]]) -> int:
    """Print a line a clip, and return how many verdicts differ."""
    wrong = 0
    print(f"\n{'clip':<24}{'expected':<26}{'found':<26}{'true M':>7}{'M':>7}{'camera':>8}  action")
    for name, true in truth.items():
        row = found.get(name, {"status": "absent", "reason": None})
        expected = f"{true['status']} {true['reason'] or ''}".strip()
        got = f"{row['status']} {row['reason'] if row['status'] == 'rejected' else ''}".strip()
        wrong += expected != got
        line = f"{name:<24}{expected:<26}{got:<26}"
        if row["status"] == "kept":
            line += f"{true['motion_intensity']:>7.2f}{row['motion_intensity']:>7.2f}{row['camera_motion']:>8.2f}"
            line += f"  {row['action']}"
        elif row["status"] == "failed":
            line += f"  {row['error']}"
        print(line + ("" if expected == got else "   <- differs"))
    return wrong


def main() -> int:
    truth_path = INPUT / "truth.json"
    if not truth_path.exists():
        started = time.monotonic()
        print(f"rendering short videos of a real face under known motion into {INPUT} ...", flush=True)
        write_all(INPUT)
        print(f"rendered in {time.monotonic() - started:.0f} s")
    truth = json.loads(truth_path.read_text())
    command = [sys.executable, "-m", "curation.run", str(HERE / "quickstart.yaml")]
    print("$ python -m curation.run examples/quickstart.yaml", flush=True)
    # Faulty files are a third of the input here, so failures are no surprise.
    code = subprocess.run(command, check=False, cwd=HERE.parent).returncode
    if code:
        return code
    found = verdicts(OUTPUT)
    wrong = compare(truth, found)
    print("\ntrue M: from the motion that was rendered; M: measured through H.264 and DIS flow, grid pixels per 1/4 s")
    print(f"{len(truth) - wrong} of {len(truth)} verdicts are as expected")
    print(
        f"\nNext: open {OUTPUT / 'manifests'} with pandas (README, 'Open a manifest'), look into {OUTPUT / 'rejected'},"
    )
    print(f"read {OUTPUT / 'summary.json'}, or try")
    print("  .venv/bin/python -m curation.decide runs/quickstart --set thresholds.min_motion_intensity=2")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
