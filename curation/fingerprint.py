"""Fingerprints: a hash of all that a stage's numbers depend on, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from curation.config import Chosen, Config
from stages.base import Engine, Stage


def build_engine(stage: Stage, chosen: Chosen, config: Config) -> Engine:
    """The engine chosen for a stage; loads no model."""
    engine = stage.engines[chosen.engine]
    return engine(engine.Params.model_validate(chosen.params), config.frames)


def describe_engines(config: Config) -> dict[str, dict[str, Any]]:
    """Per stage, in order: engine, version, parameters and fingerprint, as they go into the manifests' metadata.

    A fingerprint covers the stage's columns, the engine, its version and parameters, how frames are chosen and decoded
    where the stage sees frames, the crop where it sees the grid, and the fingerprints of the stages that it reads;
    never a threshold.
    """
    described: dict[str, dict[str, Any]] = {}
    for stage, chosen in config.stage_table():
        engine = build_engine(stage, chosen, config)
        version = engine.version()
        uses = list(stage.reads)
        if stage.needs in ("frames", "grid") and stage.name != "decode":
            uses.append("decode")
        frames = config.frames.model_dump()
        if stage.needs == "file":
            frames = {}
        elif stage.needs in ("header", "frames"):
            del frames["crop"]
        key = {
            "stage": stage.name,
            "columns": [field.name for field in stage.fields],
            "engine": chosen.engine,
            "version": version,
            "params": {k: v for k, v in chosen.params.items() if k not in engine.Params.operational},
            "frames": frames,
            "uses": {name: described[name]["fingerprint"] for name in uses},
        }
        digest = hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=8).hexdigest()
        described[stage.name] = {
            "engine": chosen.engine,
            "version": version,
            "params": chosen.params,
            "fingerprint": digest,
        }
    return described
