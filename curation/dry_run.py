"""`--dry-run`: what a run would do, without doing it."""

from __future__ import annotations

import os
from collections import Counter

from curation.config import Config
from curation.fingerprint import build_engine, describe_engines
from curation.listing import list_clips
from curation.placement import DEFAULT_GPU_GIB, ClusterSize, describe, gpu_memories, host_memory, plan_groups
from stages import weights


def dry_run(config: Config, limit: int | None) -> int:
    """Print clips found, stages, engines and thresholds, and the placement on this machine or cluster."""
    ignored: Counter[str] = Counter()
    found: Counter[tuple[str, str]] = Counter()
    for clip in list_clips(config, limit, ignored):
        found[clip.source, "unusable" if clip.problem else clip.kind] += 1
    print(f"output: {config.output}   profile: {config.profile}")
    for source in config.sources:
        counts = ", ".join(f"{n:,} {kind}" for (name, kind), n in sorted(found.items()) if name == source.name)
        cut = f", to be cut into windows ({source.windows.policy})" if source.windows else ""
        print(f"source {source.name}: {source.root}: {counts or 'nothing'}{cut}")
    if ignored:
        print(
            "not videos or images by their extension: " + ", ".join(f".{e} {n:,}" for e, n in sorted(ignored.items()))
        )
    print(f"\n{'stage':<10}{'engine':<12}{'fingerprint':<18}verdicts")
    described = describe_engines(config)
    for stage, chosen in config.stage_table():
        rules = [f"{r.reason}: {r.column} {r.op} {r.limit(config.thresholds):g}" for r in stage.rules]
        print(f"{stage.name:<10}{chosen.engine:<12}{described[stage.name]['fingerprint']:<18}{'; '.join(rules)}")
    engines = [build_engine(stage, chosen, config) for stage, chosen in config.stage_table()]
    files = [f"{name}: {weights.find(name) or weights.how_to_get(name)}" for name in weights.needed(engines)]
    files += [f"{e.origin()}: {e.folder() or 'missing'}" for e in engines if isinstance(e, weights.HubModel)]
    if files:
        print("\nmodel files, those that are missing fetched by the run where they have an address:")
    for line in files:
        print(f"  {line}")
    size, where = _resources()
    of = f" of {size.gpu_gib:.0f} GiB" if size.gpus else ""
    print(f"\nplacement on {where} with {size.cpus:g} CPUs and {size.gpus:g} GPUs{of}:")
    for line in describe(plan_groups(config, *size)):
        print(f"  {line}")
    return 0


def _resources() -> tuple[ClusterSize, str]:
    """Of the cluster when RAY_ADDRESS names one, else of this machine."""
    if os.environ.get("RAY_ADDRESS"):
        from curation.cluster import cluster_size, connect

        connect()
        return cluster_size(), "the cluster"
    memories = gpu_memories()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = len(memories) if visible is None else min(len(memories), len([v for v in visible.split(",") if v.strip()]))
    cpus = float(len(os.sched_getaffinity(0)))
    return ClusterSize(cpus, float(gpus), min(memories, default=DEFAULT_GPU_GIB), host_memory()), "this machine"
