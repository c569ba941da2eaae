"""Which stages share an actor, what such an actor takes of the cluster, and how many of them there are."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from curation.config import Chosen, Config
from curation.errors import Stopped


class ClusterSize(NamedTuple):
    """CPUs and GPUs in all, the memory of the smallest GPU, and that of each machine that has CPUs, in GiB."""

    cpus: float
    gpus: float
    gpu_gib: float
    memories: list[float]


@dataclass(frozen=True)
class Group:
    """Actors of one kind: the stages they run, CPUs and GPUs that each takes, how many, clips per call, and how many
    calls one actor has at once: with two, the next clips are there and their CPU work is done while the GPU works.
    host_gib: about what models that run on CPUs take of a machine's memory in each actor."""

    stages: tuple[str, ...]
    cpus: float
    gpus: float
    actors: int
    batch: int
    calls: int = 1
    host_gib: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.stages[0]}..{self.stages[-1]}" if len(self.stages) > 1 else self.stages[0]


@dataclass(frozen=True)
class Footprint:
    """What an engine takes of a GPU, in GiB, at its default sizes and in half precision where it has it.

    model: weights and what stays with them. clip: working memory per clip of a batch. batch: clips that fill a GPU.
    half: it is in half precision there, and takes twice as much on a CPU unless it is told otherwise.
    Reckoned from layer and tensor sizes, not measured on a GPU. An engine that is not listed uses none.
    """

    model: float
    clip: float
    batch: int = 4
    half: bool = True


FOOTPRINTS: dict[tuple[str, str], Footprint] = {
    ("quality", "clip_iqa"): Footprint(0.4, 0.15),
    ("text", "easyocr"): Footprint(0.1, 1.65, half=False),  # three frames of 512 x 912 in single precision
    ("face", "insightface"): Footprint(1.2, 0.05, half=False),  # with onnxruntime's arena
    ("embedding", "open_clip"): Footprint(0.6, 0.05),
    ("motion", "raft"): Footprint(0.05, 2.2),  # fifteen pairs, 90 MB of correlations each
    ("caption", "minigpt4"): Footprint(15.0, 0.25, batch=8),  # Vicuna 12.6, ViT-g 1.8, Q-Former 0.4
    ("caption", "image_text"): Footprint(10.0, 0.5, batch=4),  # of up to five billion parameters
}
CONTEXT_GIB = 0.6  # of CUDA and its libraries, in each process
USABLE = 0.95  # of a GPU's memory
DEFAULT_GPU_GIB = 24.0  # where the nodes do not say

# The stages at which another group begins where GPUs are used: screening, flow, captions.
BEGINS = ("quality", "motion", "caption")
# One that waits for a server has one actor of its own on any machine, takes no core, and asks for many clips at once.
WAITING = {("caption", "openai"): 16}


def plan_groups(
    config: Config, cpus: float, gpus: float, gpu_gib: float = DEFAULT_GPU_GIB, memories: Sequence[float] = ()
) -> list[Group]:
    """The groups for a cluster of so many CPUs and GPUs of `gpu_gib` GiB each, whose machines have `memories`, GiB.

    Without `execution.groups` they are chosen: without GPUs one of all stages, an actor a core; with GPUs one that
    decodes on CPUs, and others whose models share the GPUs. Every group gets an actor; CPU shares are shrunk until that
    fits, down to one core. What is left goes to the groups in turn, up to `workers`, of those on GPUs up to one a GPU.
    Where models run on CPUs and `workers` is not given, no more actors are planned than find memory, but one at least.
    Raises Stopped when the cluster has no CPU, or less GPU than one actor of each group takes.
    """
    if cpus < 0.1:
        raise Stopped(f"the cluster has {cpus:g} CPUs; at least one is needed")
    by_hand = config.execution.groups
    if by_hand:
        groups = [Group(tuple(g.stages), g.cpus, g.gpus, 1, g.batch, 2 if g.gpus else 1) for g in by_hand]
        limits = [g.workers or config.execution.workers for g in by_hand]
    else:
        groups = default_groups(config, int(gpus), gpu_gib)
        limits = [
            1 if not g.cpus else config.execution.workers or (int(gpus) if g.gpus else _held(g, memories))
            for g in groups
        ]
    if not _packs(groups, gpus):
        raise Stopped(
            f"the cluster has {gpus:g} GPUs, but one actor of each group takes {sum(g.gpus for g in groups):g}: lower "
            "gpus in execution.groups, or add a GPU node"
        )
    shrink = min(1.0, cpus / sum(group.cpus for group in groups))
    # Ray counts in steps of 1/10000; rounding down keeps the sum within the cluster.
    groups = [replace(group, cpus=int(group.cpus * shrink * 1000) / 1000) for group in groups]
    grew = True
    while grew:
        grew = False
        for index, group in enumerate(groups):
            more = [*groups[:index], replace(group, actors=group.actors + 1), *groups[index + 1 :]]
            taken = sum(g.cpus * g.actors for g in more)
            if group.actors < (limits[index] or int(cpus) + 1) and taken <= cpus + 1e-9 and _packs(more, gpus):
                groups = more
                grew = True
    return groups


def default_groups(config: Config, gpus: int, gpu_gib: float) -> list[Group]:
    """One actor of each group.

    Stages that use no GPU join the decoding; those on GPUs take the share that their models and batches need. Where
    these do not fit, batches are halved, and at last screening and flow share an actor. With two GPUs or more, captions
    have a whole one. Raises Stopped where even that does not fit.
    """
    chosen = {c.stage: c for c in config.stages}
    waiting = {name: WAITING[name, c.engine] for name, c in chosen.items() if (name, c.engine) in WAITING}
    local = {name: c for name, c in chosen.items() if name not in waiting}
    sections = _sections(local, gpus)
    for batch, calls, tried in ((8, 2, sections), (4, 2, sections), (2, 2, sections), (1, 2, sections),
                                (1, 1, _merged(sections, local))):  # fmt: skip
        groups = [_group(section, local, batch, calls, gpus, gpu_gib) for section in tried]
        if _fits(groups, gpus):
            break
    else:
        models = ", ".join(f"{g.name} {g.gpus * USABLE * gpu_gib:.1f} GiB" for g in groups if g.gpus)
        raise Stopped(
            f"the models do not fit {gpus} GPU{'s' if gpus > 1 else ''} of {gpu_gib:.0f} GiB: {models}: choose smaller "
            "engines, a caption server (engine: openai), or more GPUs"
        )
    for index, group in enumerate(groups):  # what the largest could not have, another may
        larger = _group(group.stages, local, 2 * group.batch, group.calls, gpus, gpu_gib)
        while larger.batch > groups[index].batch and _fits([*groups[:index], larger, *groups[index + 1 :]], gpus):
            groups[index] = larger
            larger = _group(group.stages, local, 2 * larger.batch, group.calls, gpus, gpu_gib)
    return groups + [Group((name,), 0.0, 0.0, 1, batch) for name, batch in waiting.items()]


def _sections(chosen: Mapping[str, Chosen], gpus: int) -> list[list[str]]:
    """The stages, in order, by the groups that they are in."""
    if not gpus:
        return [list(chosen)]
    parts: list[list[str]] = [[]]
    for name in chosen:
        if name in BEGINS:
            parts.append([])
        parts[-1].append(name)
    sections = parts[:1]
    for names in parts[1:]:
        # What needs no GPU joins what stands before it, unless that has one and would leave it idle: words made from
        # columns cost nothing.
        cheap = all(chosen[name].engine == "kinematic" for name in names)
        if not _footprints(names, chosen) and (cheap or not _footprints(sections[-1], chosen)):
            sections[-1] += names
        else:
            sections.append(names)
    return sections


def _merged(sections: Sequence[list[str]], chosen: Mapping[str, Chosen]) -> list[list[str]]:
    """The sections, with flow joined to the screening where both are on a GPU."""
    merged: list[list[str]] = []
    for section in sections:
        if section[0] == "motion" and _footprints(section, chosen) and _footprints(merged[-1], chosen):
            merged[-1] = merged[-1] + section
        else:
            merged.append(section)
    return merged


def _footprints(stages: Sequence[str], chosen: Mapping[str, Chosen]) -> list[Footprint]:
    keys = [(name, chosen[name].engine) for name in stages]
    return [FOOTPRINTS[key] for key in keys if key in FOOTPRINTS]


def _group(
    stages: Sequence[str], chosen: Mapping[str, Chosen], most: int, calls: int, gpus: int, gpu_gib: float
) -> Group:
    """One actor of these stages, with batches of `most` clips or fewer."""
    footprints = _footprints(stages, chosen)
    if not footprints or not gpus:
        return Group(tuple(stages), 1.0, 0.0, 1, 1, host_gib=_host_gib(stages, chosen))
    batch = min(most, *(f.batch for f in footprints))
    working = [batch * f.clip for f in footprints]  # of a call's engines one is at work at a time
    gib = CONTEXT_GIB + sum(f.model for f in footprints) + (max(working) if calls == 1 else sum(working))
    share = math.ceil(100 * gib / (USABLE * gpu_gib)) / 100
    if gpus > 1 and share < 1 and _footprints([s for s in stages if s == "caption"], chosen):
        share = 1.0
    return Group(tuple(stages), 1.0, share, 1, batch, calls)


def _host_gib(stages: Sequence[str], chosen: Mapping[str, Chosen]) -> float:
    """What models and a clip's work take of a machine's memory in an actor on a CPU."""
    used = [
        (f, 2 if f.half and chosen[name].params.get("precision") not in ("float16", "bfloat16") else 1)
        for name in stages
        if (f := FOOTPRINTS.get((name, chosen[name].engine))) is not None
    ]
    return sum(f.model * twice for f, twice in used) + max((f.clip * twice for f, twice in used), default=0.0)


def _held(group: Group, memories: Sequence[float]) -> int | None:
    """How many such actors these machines hold, but one at least; None where memory is no bound."""
    if not group.host_gib or not memories:
        return None
    return max(1, sum(int(gib // group.host_gib) for gib in memories))


def _fits(groups: Sequence[Group], gpus: float) -> bool:
    """Whether the models find room: those of one actor on one GPU."""
    return all(group.gpus <= 1 for group in groups) and _packs(groups, gpus)


def _packs(groups: Sequence[Group], gpus: float) -> bool:
    """Whether the actors, largest first, find room on this many GPUs: a share lies on one, more takes whole ones."""
    free = [1.0] * int(gpus)
    for want in sorted((g.gpus for g in groups for _ in range(g.actors) if g.gpus), reverse=True):
        for _ in range(math.ceil(want)):
            share = min(want, 1.0)
            room = [i for i, left in enumerate(free) if left >= share - 1e-9]
            if not room:
                return False
            free[min(room, key=lambda i: free[i])] -= share
    return True


def gpu_memories() -> list[float]:
    """Memory of this machine's NVIDIA GPUs, GiB each."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []  # no driver, no GPU
    return [float(line) / 1024 for line in answer.splitlines() if line.strip().isdigit()]


def host_memory() -> list[float]:
    """Memory of this machine that is free for use, GiB; nothing where it does not say."""
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.exists() else []
    return [int(line.split()[1]) / 2**20 for line in lines if line.startswith("MemAvailable:")]


def describe(groups: list[Group]) -> list[str]:
    """One line a group, as `--dry-run` prints them."""
    return [
        f"{g.actors} x [{', '.join(g.stages)}] with {g.cpus:g} CPU{f' and {g.gpus:g} GPU' if g.gpus else ''} each, "
        f"{g.batch} clip{'s' if g.batch > 1 else ''} a call"
        + (f", about {g.host_gib:.0f} GiB of memory each" if g.host_gib >= 1 else "")
        for g in groups
    ]
