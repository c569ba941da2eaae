"""`mix`: how many clips each source may give, and what the books say of the others."""

from pathlib import Path
from typing import Any

import pytest

from curation.config_file import load
from curation.errors import ConfigError
from curation.outputs import write_outputs
from manifests.shards import read_manifest
from tests.curation.made import Made, clip, config


def run(tmp_path: Path, mix: dict[str, int], clips: int = 10, reverse: bool = False) -> tuple[Any, Made, set[str]]:
    """Decide `clips` good clips of source s and one too small, under `mix`."""
    made = Made(config(tmp_path, mix=mix))
    listed = [clip(f"{i}.mp4") for i in range(clips)] + [clip("small.mp4")]
    made.listing(reversed(listed) if reverse else listed)
    for one in listed:
        made.measure(one, **({"header": {"short_side": 480}} if one.path == "small.mp4" else {}))
    with made.read() as known:
        decision = write_outputs(made.config, made.engines, known)
    return decision, made, set(read_manifest(made.output).column("path").to_pylist())


def test_the_same_clips_are_kept_in_any_order_and_the_others_are_in_the_books(tmp_path: Path) -> None:
    decision, made, kept = run(tmp_path, {"s": 4})
    assert decision.status == {"kept": 4, "rejected": 7}
    assert decision.reasons == {"over_mix": 6, "resolution": 1}
    assert decision.as_json()["mix"] == {"s": {"asked": 4, "kept": 4}}
    assert (
        decision.funnel[-1] | {"stage": "mix", "in": 10, "rejected": {"over_mix": 6}, "out": 4} == decision.funnel[-1]
    )
    rejected = read_manifest(made.output / "rejected").to_pylist()
    over = sorted((row for row in rejected if row["reason"] == "over_mix"), key=lambda row: row["value"])
    assert [(row["value"], row["threshold"], row["stage"]) for row in over] == [(r, 4.0, "mix") for r in range(5, 11)]
    assert all(row["caption"] == "a person" for row in over), "what was measured of them stays"
    ids = {clip(path).clip_id for path in kept}
    assert max(ids) < min(row["clip_id"] for row in over)
    (tmp_path / "again").mkdir()
    assert run(tmp_path / "again", {"s": 4}, reverse=True)[2] == kept
    (tmp_path / "more").mkdir()
    assert kept <= run(tmp_path / "more", {"s": 6})[2]


def test_a_source_that_gives_less_is_said(tmp_path: Path) -> None:
    decision, _, kept = run(tmp_path, {"s": 52072}, clips=3)
    assert len(kept) == 3
    assert decision.as_json()["mix"] == {"s": {"asked": 52072, "kept": 3}}
    assert "over_mix" not in decision.reasons


def test_a_mix_of_unknown_sources_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    path = tmp_path / "sources.yaml"
    path.write_text("output: out\nsources: [{name: talks, kind: folder, root: clips}]\nmix: {talk: 5}\n")
    with pytest.raises(ConfigError, match=r"mix.talk: no source has this name; did you mean talks\?"):
        load(path)
    with pytest.raises(ConfigError, match=r"mix.talks: input should be greater than or equal to 0, got -1"):
        load(path, ("mix={talks: -1}",))
