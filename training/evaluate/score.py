"""Scores of a folder of generated videos: measured once, kept a file for each video and metric, summed up."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from manifests.shards import whole
from stages import weights
from training.evaluate.videos import Item, read_folder
from training.metrics.base import Metric
from training.metrics.control import Control, agreement
from training.metrics.table import METRICS


@dataclass(frozen=True)
class Share:
    """Which part of the videos this process scores, as torchrun tells it, and on which device."""

    rank: int
    world: int
    device: str

    @classmethod
    def of(cls, device: str) -> Share:
        """From torchrun's environment; alone without it. `cuda` becomes this process's own GPU."""
        rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if device == "cuda" and world > 1:
            device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        return cls(rank, world, device)


class Scores:
    """The folder `out`: measured/METRIC/VIDEO.json, each whole or not there, and the summary of all."""

    def __init__(self, folder: Path, out: Path, names: Sequence[str]) -> None:
        """Raises ValueError when the folder is wrong, or a package or model file is missing: one line for each."""
        self.items = read_folder(folder)
        self.out = out
        self.metrics: list[Metric] = [METRICS[name]() for name in names]
        weights.require(dict.fromkeys(name for metric in self.metrics for name in metric.weights))
        self.versions = {metric.name: _fingerprint(metric) for metric in self.metrics}

    def measure(self, share: Share) -> int:
        """Measure what is not measured yet of this process's videos; returns how many scores that were."""
        mine = self.items[share.rank :: share.world]
        todo = [(item, wanted) for item in mine if (wanted := [m for m in self.metrics if not self._kept(m, item)])]
        ready: set[str] = set()
        count = 0
        for item, wanted in tqdm(todo, desc="scoring", unit="video", disable=None):
            try:
                video = item.load()
            except ValueError as error:
                for metric in wanted:
                    self._write(metric, item, {"error": str(error)})
                continue
            for metric in wanted:
                if metric.name not in ready:
                    metric.setup(share.device)
                    ready.add(metric.name)
                try:
                    score = metric.measure(video)
                except ValueError as error:
                    self._write(metric, item, {"error": f"{item.path}: {error}"})
                else:
                    self._write(metric, item, {"value": score.value, "details": dict(score.details)})
                    count += 1
        return count

    def missing(self) -> int:
        """Scores that no process has measured yet."""
        return sum(not self._kept(metric, item) for metric in self.metrics for item in self.items)

    def summary(self, label: str) -> dict[str, Any]:
        """All about this method: for each metric mean, spread, failures, definition and models; each video's values."""
        metrics, videos = {}, {item.name: _asked(item) for item in self.items}
        for metric in self.metrics:
            kept = {item.name: self._read(metric, item) for item in self.items}
            for name, record in kept.items():
                videos[name]["scores"][metric.name] = record.get("value")
            values = [record["value"] for record in kept.values() if "value" in record]
            metrics[metric.name] = {
                "title": metric.title,
                "mean": float(np.mean(values)) if values else None,
                "std": float(np.std(values)) if values else None,
                "videos": len(values),
                "failed": {name: record["error"] for name, record in kept.items() if "error" in record},
                "definition": metric.definition,
                "models": [_model(name) for name in metric.weights],
                "version": self.versions[metric.name],
            }
            if isinstance(metric, Control) and values:
                pairs = [(record["details"]["asked"], record["value"]) for record in kept.values() if "value" in record]
                metrics[metric.name]["agreement"] = agreement(*zip(*pairs, strict=True))
        return {"method": label, "metrics": metrics, "videos": videos}

    def _path(self, metric: Metric, item: Item) -> Path:
        return self.out / "measured" / metric.name / f"{item.name}.json"

    def _read(self, metric: Metric, item: Item) -> dict[str, Any]:
        return json.loads(self._path(metric, item).read_text(encoding="utf-8"))

    def _kept(self, metric: Metric, item: Item) -> bool:
        if not self._path(metric, item).is_file():
            return False
        return self._read(metric, item)["of"] == self._of(metric, item)

    def _of(self, metric: Metric, item: Item) -> dict[str, Any]:
        asked = [item.prompt, item.intensity, item.grid_size]
        return {"version": self.versions[metric.name], "files": item.stamp(), "asked": asked}

    def _write(self, metric: Metric, item: Item, record: dict[str, Any]) -> None:
        with whole(self._path(metric, item)) as temporary:
            temporary.write_text(json.dumps(record | {"of": self._of(metric, item)}), encoding="utf-8")


def _asked(item: Item) -> dict[str, Any]:
    about = {"prompt": item.prompt, "action": item.action, "intensity": item.intensity}
    return {"file": str(item.path), "image": str(item.image), **about, "scores": {}}


def _fingerprint(metric: Metric) -> str:
    """Changes with the definition, the packages and the model files."""
    definition = hashlib.sha256(metric.definition.encode()).hexdigest()[:8]
    return f"{definition} {weights.version(metric.weights, *metric.packages)}".strip()


def _model(name: str) -> dict[str, Any]:
    weight, path = weights.WEIGHTS[name], weights.find(name)
    assert path is not None
    return {"file": weight.file, "origin": weight.origin, "licence": weight.licence, "sha256": weights.digest(path)}
