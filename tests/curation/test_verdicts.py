import random
from pathlib import Path

import pytest

from curation.verdicts import Outcome
from stages.base import Rule
from tests.curation.made import GOOD, Made, clip, config, random_changes


def found(made: Made, retry: str = "nothing") -> dict[str, Outcome]:
    with made.read(retry) as measurements:  # type: ignore[arg-type]
        return {path: measurements.outcomes[code] for path, code in measurements.rows("SELECT path, code FROM facts")}


def ends(made: Made, retry: str = "nothing") -> dict[str, tuple[str, str | None, str | None]]:
    return {p: (o.status, o.stage, o.rule and o.rule.reason) for p, o in found(made, retry).items()}


def test_a_clip_ends_at_the_first_stage_that_decides(tmp_path: Path) -> None:
    made = Made(config(tmp_path))
    clips = {n: clip(n) for n in ("good", "small", "two faults", "failed", "part", "none")}
    clips["gone"] = clip("gone", problem="broken link to x")
    made.listing(clips.values())
    made.measure(clips["good"])
    made.measure(clips["small"], header={"short_side": 511})
    made.measure(clips["two faults"], text={"text_area": 0.3}, face={"face_count": 2})
    made.measure(clips["failed"], ["header", "decode"], decode={"error": "ends early"})
    made.measure(clips["part"], ["header", "decode", "cut", "hash", "quality"])
    assert ends(made) == {
        "good": ("kept", None, None),
        "small": ("rejected", "header", "resolution"),
        "two faults": ("rejected", "text", "text_overlay"),
        "failed": ("failed", "decode", None),
        "part": ("to_measure", "text", None),
        "none": ("to_measure", "header", None),
        "gone": ("failed", "listing", None),
    }


@pytest.mark.parametrize(
    ("stage", "column", "value", "reason"),
    [
        ("header", "short_side", 511, "resolution"),
        ("header", "file_duration_s", 3.74, "too_short"),
        ("header", "missing_frames", 1, "too_short"),
        ("quality", "quality_score", 0.0, "quality"),
        ("text", "text_area", 0.03, "text_overlay"),
        ("face", "face_count", 0, "no_face"),
        ("face", "face_count", 2, "multiple_faces"),
        ("face", "face_fraction", 0.1, "face_lost"),
        ("face", "face_score", 0.01, "low_face_confidence"),
        ("crop", "face_in_crop", 0.2, "face_out_of_frame"),
    ],
)
def test_every_rule_has_its_reason(tmp_path: Path, stage: str, column: str, value: float, reason: str) -> None:
    made = Made(config(tmp_path))
    made.listing([clip("a")])
    made.measure(clip("a"), **{stage: {column: value}})
    assert ends(made) == {"a": ("rejected", stage, reason)}


def test_rules_on_motion_bind_when_they_are_set(tmp_path: Path) -> None:
    made = Made(config(tmp_path, thresholds={"max_camera_motion": 2.0, "min_motion_intensity": 1.0}))
    made.listing([clip("pan"), clip("still"), clip("good")])
    made.measure(clip("pan"), motion={"camera_motion": 2.1})
    made.measure(clip("still"), motion={"motion_intensity": 0.9})
    made.measure(clip("good"))
    assert {p: o.rule and o.rule.reason for p, o in found(made).items()} == {
        "pan": "camera_motion",
        "still": "too_still",
        "good": None,
    }


def test_a_changed_file_is_not_taken_for_the_measured_one(tmp_path: Path) -> None:
    made = Made(config(tmp_path))
    made.listing([clip("a", stamp="2-2")])
    made.measure(clip("a", stamp="1-1"))
    assert ends(made) == {"a": ("to_measure", "header", None)}


def test_transient_failures_are_measured_again_and_permanent_ones_only_on_request(tmp_path: Path) -> None:
    made = Made(config(tmp_path))
    made.listing([clip("transient"), clip("permanent")])
    made.measure(clip("transient"), motion={"error": "disk", "transient": True})
    made.measure(clip("permanent"), motion={"error": "broken", "transient": False})
    again, failed = ("to_measure", "motion", None), ("failed", "motion", None)
    assert ends(made, "nothing") == {"transient": failed, "permanent": failed}
    assert ends(made, "transient") == {"transient": again, "permanent": failed}
    assert ends(made, "all") == {"transient": again, "permanent": again}


def test_the_first_measurement_wins_but_a_success_replaces_a_failure(tmp_path: Path) -> None:
    made = Made(config(tmp_path))
    made.listing([clip("a"), clip("b")])
    made.measure(clip("a"))
    made.measure(clip("b"), motion={"error": "disk", "transient": True})
    made.recorder.flush()
    made.measure(clip("a"), motion={"motion_intensity": 9.0})
    made.measure(clip("b"), ["motion"], motion={"motion_intensity": 7.0})
    with made.read() as measurements:
        rows = measurements.rows("SELECT path, motion_intensity, code FROM facts ORDER BY path")
    assert rows == [("a", 5.0, 0), ("b", 7.0, 0)]


def test_verdicts_in_sql_equal_the_rules_applied_one_by_one(tmp_path: Path) -> None:
    rng = random.Random(7)
    made = Made(config(tmp_path))
    clips = [clip(f"{i}") for i in range(400)]
    made.listing(clips)
    expected: dict[str, tuple[str, str | None, Rule | None]] = {}
    for one in clips:
        changes = random_changes(rng)
        only = list(GOOD)[: rng.choice([3, 7, 11])]
        made.measure(one, only, **changes)
        end: tuple[str, str | None, Rule | None] = ("kept", None, None)
        for stage, _ in made.config.stage_table():
            columns = {**GOOD[stage.name], **changes.get(stage.name, {})}
            broken = [r for r in stage.rules if r.rejects(columns.get(r.column), made.config.thresholds)]
            if stage.name not in only:
                end = ("to_measure", stage.name, None)
            elif "error" in columns:
                end = ("failed", stage.name, None)
            elif broken:
                end = ("rejected", stage.name, broken[0])
            if end[0] != "kept":
                break
        expected[one.path] = end
    assert {p: (o.status, o.stage, o.rule) for p, o in found(made).items()} == expected
    assert len({e[0] for e in expected.values()}) == 4
