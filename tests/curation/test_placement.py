from pathlib import Path
from typing import Any

import pytest

from curation.errors import Stopped
from curation.placement import CONTEXT_GIB, FOOTPRINTS, Group, describe, plan_groups
from curation.profiles import PROFILES
from tests.curation.made import GOOD, config

STAGES = list(GOOD)
SCREEN = ("quality", "text", "face", "crop", "embedding")
DECODE = ("header", "decode", "cut", "hash")
SERVER = {"caption": {"engine": "openai", "base_url": "http://localhost:8000/v1", "model": "any"}}


def two_groups(**second: Any) -> dict[str, Any]:
    return {"groups": [{"stages": STAGES[:9], "cpus": 1}, {"stages": STAGES[9:], "cpus": 1, **second}]}


def paper(tmp_path: Path, cpus: float, gpus: float, gpu_gib: float = 24, **changes: Any) -> list[Group]:
    return plan_groups(config(tmp_path, profile="paper", **changes), cpus, gpus, gpu_gib)


def on_each_gpu(groups: list[Group]) -> float:
    return sum(g.gpus * g.actors for g in groups)


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
    thirds = {"groups": [{"stages": [s], "gpus": 0.6} for s in STAGES[2:5]]}
    thirds["groups"] = [{"stages": STAGES[:2]}, *thirds["groups"], {"stages": STAGES[5:]}]
    with pytest.raises(Stopped, match=r"has 2 GPUs, but one actor of each group takes 1.8"):
        plan_groups(config(tmp_path, execution=thirds), cpus=8, gpus=2)  # two shares of 0.6 are more than one GPU


def test_engines_without_models_ask_for_no_gpu(tmp_path: Path) -> None:
    (group,) = plan_groups(config(tmp_path), cpus=8, gpus=4)
    assert (group.stages, group.actors, group.gpus) == (tuple(STAGES), 8, 0)


def test_the_paper_profile_on_gpu_nodes(tmp_path: Path) -> None:
    groups = paper(tmp_path, cpus=32, gpus=4, gpu_gib=24)
    assert [g.stages for g in groups] == [DECODE, SCREEN, ("motion",), ("caption",)]
    assert [g.gpus for g in groups] == [0, 0.47, 0.42, 1]
    assert [g.batch for g in groups] == [1, 4, 4, 8]
    assert [g.calls for g in groups] == [1, 2, 2, 2]
    assert [g.actors for g in groups] == [26, 2, 2, 2]
    assert describe(groups)[2] == "2 x [motion] with 1 CPU and 0.42 GPU each, 4 clips a call"


def test_one_gpu_of_24_gib_holds_all_of_the_papers_models(tmp_path: Path) -> None:
    for gpu_gib in (24, 22.5):
        groups = paper(tmp_path, cpus=8, gpus=1, gpu_gib=gpu_gib)
        assert [g.stages for g in groups] == [DECODE, (*SCREEN, "motion"), ("caption",)]
        assert [g.actors for g in groups] == [6, 1, 1]
        assert on_each_gpu(groups) <= 1
        used = FOOTPRINTS["caption", "minigpt4"]
        caption = groups[-1]
        assert caption.gpus * gpu_gib >= CONTEXT_GIB + used.model + caption.batch * used.clip


def test_a_larger_gpu_has_room_for_batches(tmp_path: Path) -> None:
    groups = paper(tmp_path, cpus=16, gpus=1, gpu_gib=80)
    assert [(g.batch, g.actors) for g in groups] == [(1, 13), (4, 1), (4, 1), (8, 1)]
    assert on_each_gpu(groups) <= 1


@pytest.mark.parametrize("gpus", [1, 2])
def test_models_that_no_gpu_holds_are_named(tmp_path: Path, gpus: int) -> None:
    with pytest.raises(
        Stopped, match=r"do not fit . GPUs? of 16 GiB: .*caption 1\d\.\d GiB: choose smaller engines, a c"
    ):
        paper(tmp_path, cpus=8, gpus=gpus, gpu_gib=16)


def test_without_gpus_no_more_actors_are_planned_than_find_memory(tmp_path: Path) -> None:
    def plan(memories: list[float], **changes: Any) -> str:
        (line,) = describe(plan_groups(config(tmp_path, profile="paper", **changes), 32, 0, memories=memories))
        return line.replace(f"[{', '.join(STAGES)}] ", "")

    half = {"caption": {"precision": "bfloat16"}}
    assert plan([128.0]) == "3 x with 1 CPU each, 1 clip a call, about 38 GiB of memory each"
    assert plan([70.0, 40.0, 20.0]).startswith("2 x ")
    assert plan([70.0], stages=half) == "3 x with 1 CPU each, 1 clip a call, about 23 GiB of memory each"
    assert plan([8.0]).startswith("1 x ")
    assert plan([8.0], execution={"workers": 2}).startswith("2 x "), "who asks for so many gets them"
    assert plan([]).startswith("32 x ")
    (embedded,) = plan_groups(config(tmp_path), cpus=8, gpus=0, memories=[1.0])
    assert (embedded.actors, embedded.host_gib) == (8, 0)


def test_captions_from_a_server_take_neither_core_nor_gpu(tmp_path: Path) -> None:
    groups = paper(tmp_path, cpus=8, gpus=1, gpu_gib=16, stages=SERVER)
    assert [g.stages for g in groups] == [DECODE, SCREEN, ("motion",), ("caption",)]
    assert (groups[-1].cpus, groups[-1].gpus, groups[-1].actors, groups[-1].batch) == (0, 0, 1, 16)
    assert [g.batch for g in groups[1:3]] == [2, 2], "what does not fit with four clips a call is halved"
    without = paper(tmp_path, cpus=2, gpus=0, stages=SERVER)
    assert [(g.stages, g.actors) for g in without] == [(tuple(STAGES[:-1]), 2), (("caption",), 1)]


def test_a_single_model_shares_nothing_but_its_neighbours_words(tmp_path: Path) -> None:
    raft = {"motion": {"engine": "raft"}}
    groups = plan_groups(config(tmp_path, stages=raft), cpus=8, gpus=2, gpu_gib=24)
    assert [g.stages for g in groups] == [tuple(STAGES[:9]), ("motion", "caption")]
    assert [(g.cpus, g.gpus, g.actors) for g in groups] == [(1, 0, 6), (1, 0.42, 2)]
    small = plan_groups(config(tmp_path, stages=raft), cpus=1, gpus=1, gpu_gib=8)
    assert [(g.cpus, g.gpus, g.batch) for g in small] == [(0.5, 0, 1), (0.5, 0.67, 2)]


def test_every_engine_of_the_paper_profile_that_loads_a_model_is_in_the_table() -> None:
    without_models = {
        ("header", "container"),
        ("decode", "decord"),
        ("cut", "block_match"),
        ("hash", "dct"),
        ("crop", "square"),
    }
    assert set(PROFILES["paper"].items()) - set(FOOTPRINTS) == without_models
    assert not set(PROFILES["embedded"].items()) & set(FOOTPRINTS)
