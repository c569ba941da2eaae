"""Which stages share an actor, what such an actor takes of the cluster, and how many of them there are."""

from __future__ import annotations

from dataclasses import dataclass, replace

from curation.config import Config, GroupConfig
from curation.errors import Stopped


@dataclass(frozen=True)
class Group:
    """Actors of one kind: the stages they run, CPUs and GPUs that each takes, how many, and clips per call."""

    stages: tuple[str, ...]
    cpus: float
    gpus: float
    actors: int
    batch: int

    @property
    def name(self) -> str:
        return f"{self.stages[0]}..{self.stages[-1]}" if len(self.stages) > 1 else self.stages[0]


def plan_groups(config: Config, cpus: float, gpus: float) -> list[Group]:
    """The groups for a cluster of so many CPUs and GPUs.

    Without `execution.groups` all stages share an actor of one CPU. Every group gets an actor; CPU shares are shrunk
    until that fits, down to one core. What is left goes to the groups in turn, up to `workers`.
    Raises Stopped when the cluster has no CPU, or fewer GPUs than one actor of each group takes.
    """
    wanted = config.execution.groups or [GroupConfig(stages=[c.stage for c in config.stages])]
    need_gpus = sum(group.gpus for group in wanted)
    if cpus < 0.1:
        raise Stopped(f"the cluster has {cpus:g} CPUs; at least one is needed")
    if need_gpus > gpus:
        raise Stopped(
            f"the cluster has {gpus:g} GPUs, but one actor of each group takes {need_gpus:g}: lower gpus in "
            "execution.groups, or add a GPU node"
        )
    shrink = min(1.0, cpus / sum(group.cpus for group in wanted))
    groups = [
        # Ray counts in steps of 1/10000; rounding down keeps the sum within the cluster.
        Group(tuple(g.stages), int(g.cpus * shrink * 1000) / 1000, g.gpus, 1, g.batch)
        for g in wanted
    ]
    limits = [g.workers or config.execution.workers or int(cpus) + 1 for g in wanted]
    grew = True
    while grew:
        grew = False
        for index, group in enumerate(groups):
            free_cpus = cpus - sum(g.cpus * g.actors for g in groups)
            free_gpus = gpus - sum(g.gpus * g.actors for g in groups)
            if group.actors < limits[index] and group.cpus <= free_cpus + 1e-9 and group.gpus <= free_gpus + 1e-9:
                groups[index] = replace(group, actors=group.actors + 1)
                grew = True
    return groups


def describe(groups: list[Group]) -> list[str]:
    """One line a group, as `--dry-run` prints them."""
    return [
        f"{g.actors} x [{', '.join(g.stages)}] with {g.cpus:g} CPU{f' and {g.gpus:g} GPU' if g.gpus else ''} each, "
        f"{g.batch} clip{'s' if g.batch > 1 else ''} a call"
        for g in groups
    ]
