"""What the closed loop reports: figures of the sampled videos and of the trainings that they come from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

ASKED = (0.0, 5.0, 10.0, 15.0, 20.0)
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # 97.5 % quantile of t for that many seeds


@dataclass(frozen=True)
class Made:
    """One sampled video: what was asked, what the pipeline's flow shows, and whose face it is.

    seed: of the training that it was sampled from.
    """

    seed: int
    person: int
    motion: str
    asked: float
    measured: float
    obeyed: bool
    likeness: float
    identified: bool


def summary(made: list[Made], fits: dict[int, Any], seconds: dict[str, float]) -> dict[str, Any]:
    """Figures of the report."""
    import pandas as pd

    table = pd.DataFrame([asdict(m) for m in made])
    motions = table.groupby("motion", sort=False)
    moving = table[(table["asked"] > 0) | (table["motion"] == "still")]  # at M = 0 there is no motion to obey in
    gaps = {}
    for name in next(iter(fits.values()))["gaps"]:
        values = np.array([fit["gaps"][name] for fit in fits.values()])
        gaps[name] = {"mean": float(values.mean()), "seeds": values.tolist(), "low": interval_low(values)}
    return {
        "spearman": {seed: spearman(of) for seed, of in table.groupby("seed")},
        "spearman_by_motion": {name: spearman(of) for name, of in motions if of["asked"].nunique() > 1},
        "curve": {f"{m:g}": table.loc[table["asked"] == m, "measured"].describe().to_dict() for m in ASKED},
        "obeyed": {seed: float(of["obeyed"].mean()) for seed, of in moving.groupby("seed")},
        "obeyed_by_motion": moving.groupby("motion", sort=False)["obeyed"].mean().to_dict(),
        "identified": float(table["identified"].mean()),
        "likeness": float(table["likeness"].mean()),
        "gaps": gaps,
        "held_out": all(fit["held_out"] for fit in fits.values()),
        "steps": next(iter(fits.values()))["step"],
        "control_shown": control_shown(gaps, fits),
        "seconds": {name: round(value) for name, value in seconds.items()},
    }


def spearman(table: Any) -> float:
    """Rank correlation of measured and asked M."""
    return float(table["asked"].rank().corr(table["measured"].rank()))


def control_shown(gaps: dict[str, Any], fits: dict[int, Any]) -> bool:
    """Whether on held-out clips the gaps of action and motion exceed 1 with a 95 % interval over three seeds."""
    held_out = all(fit["held_out"] for fit in fits.values())
    lows = [gaps[name]["low"] for name in ("action", "motion") if name in gaps]
    return held_out and len(fits) >= 3 and len(lows) == 2 and all(low is not None and low > 1 for low in lows)


def interval_low(values: np.ndarray) -> float | None:
    """Lower end of the 95 % interval of the mean over seeds; None for fewer than two or more than five seeds."""
    if len(values) not in STUDENT:
        return None
    return float(values.mean() - STUDENT[len(values)] * values.std(ddof=1) / math.sqrt(len(values)))


def over_seeds(values: dict[int, float], form: str) -> str:
    """The mean, and each seed's where there are several."""
    mean = format(float(np.mean(list(values.values()))), form)
    each = ", ".join(format(value, form) for value in values.values())
    return mean if len(values) == 1 else f"{mean} (of each seed: {each})"


def as_text(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"# Closed loop: {report['steps']} steps",
        "",
        "| asked M | measured M, mean | least | most | videos |",
        "|---|---|---|---|---|",
    ]
    for asked, row in report["curve"].items():
        lines.append(f"| {asked} | {row['mean']:.2f} | {row['min']:.2f} | {row['max']:.2f} | {row['count']:.0f} |")
    lines += [
        "",
        f"- Spearman of measured and asked M: {over_seeds(report['spearman'], '.3f')}; "
        + ", ".join(f"{motion} {value:.2f}" for motion, value in report["spearman_by_motion"].items()),
        f"- actions obeyed (examples/obedience.py; M > 0, or still): {over_seeds(report['obeyed'], '.0%')}; "
        + ", ".join(f"{motion} {share:.0%}" for motion, share in report["obeyed_by_motion"].items()),
        f"- face nearest to its own reference among the unseen people: {report['identified']:.0%}, "
        f"mean cosine {report['likeness']:.3f} (phi is the network of the loss)",
    ]
    where = "held-out clips" if report["held_out"] else "the clips trained on"
    for name, gap in report["gaps"].items():
        low = "" if gap["low"] is None else f", 95 % interval from {gap['low']:.3f}"
        lines.append(f"- loss gap of {name} on {where}: {gap['mean']:.3f} over {len(gap['seeds'])} seed(s){low}")
    shown = "is shown" if report["control_shown"] else "is not shown"
    lines.append(f"- control of action and motion on held-out clips (both intervals above 1, three seeds): {shown}")
    lines.append(f"- seconds: {', '.join(f'{name} {value}' for name, value in report['seconds'].items())}")
    return "\n".join(lines) + "\n"
