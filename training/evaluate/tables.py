"""Tables and plots of scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from manifests.shards import whole
from training.metrics.table import METRICS, TABLE_1

SUMMARY = "scores.json"


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary that `score` wrote into this folder. Raises ValueError where there is none."""
    path = folder / SUMMARY if folder.is_dir() else folder
    if not path.is_file():
        raise ValueError(f"{path}: no such file; `python -m training.evaluate score` writes it")
    return json.loads(path.read_text(encoding="utf-8"))


def write_summary(summary: dict[str, Any], out: Path) -> None:
    """scores.json, table.md, and control.png where control was measured."""
    with whole(out / SUMMARY) as temporary:
        temporary.write_text(json.dumps(summary, indent=1, sort_keys=True), encoding="utf-8")
    with whole(out / "table.md") as temporary:
        temporary.write_text(markdown([summary]), encoding="utf-8")
    if "agreement" in summary["metrics"].get("control", {}):
        plot_control(summary, out / "control.png")


def markdown(summaries: Sequence[dict[str, Any]]) -> str:
    """The paper's Table 1 and below it a row for each summary; how each was measured; what failed."""
    names = [name for name in METRICS if name != "control"]
    titles = [METRICS[name]().title for name in names]
    rows = [["Method", *titles, "Videos"], ["---", *["---:"] * (len(names) + 1)]]
    rows += [[f"{method} (paper)", *(f"{v:.3f}" for v in values), ""] for method, values in TABLE_1.items()]
    for summary in summaries:
        measured = summary["metrics"]
        cells = [_cell(measured[name]["mean"]) if name in measured else "" for name in names]
        rows.append([summary["method"], *cells, str(len(summary["videos"]))])
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
    for summary in summaries:
        if "agreement" in summary["metrics"].get("control", {}):
            text += "\n" + _control(summary)
        for name, found in summary["metrics"].items():
            if found["failed"]:
                count, of = len(found["failed"]), len(summary["videos"])
                text += f"\n{summary['method']}: {count} of {of} videos have no {name}, see {SUMMARY}.\n"
    return text


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _control(summary: dict[str, Any]) -> str:
    found = summary["metrics"]["control"]["agreement"]
    rho, interval = found["spearman"], found["spearman_interval"]
    said = "none, M asked or measured never changes" if rho is None else f"{rho:.3f}"
    if interval is not None:
        said += f" ({interval[0]:.3f} to {interval[1]:.3f})"
    return (
        f"{summary['method']}, control over {found['videos']} videos: Spearman {said}; measured minus asked M "
        f"{found['mean_error']:+.2f}, absolute {found['mean_absolute_error']:.2f}.\n"
    )


def plot_control(summary: dict[str, Any], path: Path) -> None:
    """Measured against asked M: a point for each video, mean and spread for each M asked, the line that a perfect
    model would lie on."""
    from matplotlib.figure import Figure

    found = summary["metrics"]["control"]["agreement"]
    scores = [(v["intensity"], v["scores"].get("control")) for v in summary["videos"].values()]
    pairs = [pair for pair in scores if pair[1] is not None]
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 20], [0, 20], color="0.6", linestyle="--", linewidth=1, label="measured = asked")
    asked, measured = zip(*pairs, strict=True)
    axes.scatter(asked, measured, s=14, alpha=0.4, color="tab:blue", edgecolors="none", label="video")
    groups = [(float(m), of["mean"], of["std"]) for m, of in found["by_asked"].items()]
    if len(groups) < len(pairs):
        m, mean, std = zip(*groups, strict=True)
        axes.errorbar(m, mean, yerr=std, fmt="o", color="tab:red", capsize=4, markersize=5, label="mean, 1 std")
    axes.set_xlabel("M asked for")
    axes.set_ylabel("M measured (px of the grid per 1/4 s)")
    axes.set_xlim(-0.5, 20.5)
    axes.set_xticks(range(0, 21, 5))
    axes.set_ylim(bottom=0)
    rho = found["spearman"]
    said = "not defined" if rho is None else f"{rho:.2f}"
    title = f"Spearman {said}, mean absolute error {found['mean_absolute_error']:.1f}, {found['videos']} videos"
    axes.set_title(f"{summary['method']}\n{title}", fontsize=10)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)  # over no point
    with whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
