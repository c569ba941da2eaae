from pathlib import Path
from typing import Any

import pytest

from curation.errors import Stopped
from curation.placement import describe, plan_groups
from tests.curation.made import GOOD, config

STAGES = list(GOOD)


def two_groups(**second: Any) -> dict[str, Any]:
    return {"groups": [{"stages": STAGES[:7], "cpus": 1}, {"stages": STAGES[7:], "cpus": 1, **second}]}


def test_one_group_with_an_actor_a_core(tmp_path: Path) -> None:
    (group,) = plan_groups(config(tmp_path), cpus=4, gpus=0)
    assert group.stages == tuple(STAGES)
    assert (group.actors, group.cpus, group.gpus) == (4, 1, 0)


def test_workers_bound_the_actors(tmp_path: Path) -> None:
    (group,) = plan_groups(config(tmp_path, execution={"workers": 3}), cpus=16, gpus=0)
    assert group.actors == 3
    (group,) = plan_groups(config(tmp_path, execution={"workers": 8}), cpus=2, gpus=0)
    assert group.actors == 2


def test_groups_shrink_until_each_has_an_actor_on_one_core(tmp_path: Path) -> None:
    groups = plan_groups(config(tmp_path, execution=two_groups()), cpus=1, gpus=0)
    assert [g.actors for g in groups] == [1, 1]
    assert sum(g.cpus for g in groups) <= 1


def test_what_is_left_goes_to_the_groups_in_turn(tmp_path: Path) -> None:
    groups = plan_groups(config(tmp_path, execution=two_groups(workers=1)), cpus=5, gpus=0)
    assert [g.actors for g in groups] == [4, 1]


def test_gpus_bound_the_actors_too(tmp_path: Path) -> None:
    groups = plan_groups(config(tmp_path, execution=two_groups(gpus=0.5)), cpus=8, gpus=1)
    assert [g.actors for g in groups] == [6, 2]
    assert describe(groups)[1] == "2 x [motion, caption] with 1 CPU and 0.5 GPU each, 1 clip a call"


def test_what_cannot_be_scheduled_says_what_is_short(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="the cluster has 0 CPUs; at least one is needed"):
        plan_groups(config(tmp_path), cpus=0, gpus=0)
    with pytest.raises(Stopped, match=r"has 0 GPUs, but one actor of each group takes 0.5: lower gpus"):
        plan_groups(config(tmp_path, execution=two_groups(gpus=0.5)), cpus=8, gpus=0)
