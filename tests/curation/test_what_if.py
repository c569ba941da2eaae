from pathlib import Path

import pytest

from curation.decide import main
from curation.summary import save_config
from tests.curation.made import Made, clip, config


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Ten clips of quality 0.05, 0.15, ... 0.95 and M of twice their number; those below 0.31 measured no further."""
    made = Made(config(tmp_path))
    clips = [clip(f"{i}.mp4") for i in range(10)]
    made.listing(clips)
    for i, one in enumerate(clips):
        quality = {"quality": {"quality_score": i / 10 + 0.05}}
        if i < 3:
            stages = [s.name for s, _ in made.config.stage_table()]
            made.measure(one, stages[: stages.index("quality") + 1], **quality)
        else:
            made.measure(one, **quality, motion={"motion_intensity": 2.0 * i})
    made.recorder.flush()
    save_config(made.output, made.config, made.engines)
    return made.output


def contents(output: Path) -> dict[str, bytes]:
    return {str(p.relative_to(output)): p.read_bytes() for p in sorted(output.rglob("*")) if p.is_file()}


def test_what_if_says_who_would_change_side_and_writes_nothing(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(output)
    assert main([str(output), "--what-if", "--set", "thresholds.min_quality=0.6"]) == 0
    said = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines()[1:5]}
    assert rows["kept"] == ["7", "4"]
    assert rows["rejected"] == ["3", "6"]
    assert "3 of 10 clips would change" in said
    assert "3  kept -> rejected: quality" in said
    assert [line.split(":")[0].strip() for line in said.splitlines() if line.startswith("  '")] == [
        "'s/3.mp4'",
        "'s/4.mp4'",
        "'s/5.mp4'",
    ]
    histogram = {line.split()[0]: line.split()[3:5] for line in said.splitlines() if " to " in line}
    assert histogram["6"] == ["1", "0"]
    assert histogram["12"] == ["1", "1"]
    assert contents(output) == before


def test_clips_never_measured_further_are_to_measure(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(output), "--what-if", "--set", "thresholds.min_quality=0.2"]) == 0
    said = capsys.readouterr().out
    assert "1  rejected: quality -> to_measure" in said
    assert "curation.run with the same --set does it" in said


def test_the_sweep_gives_the_yield_at_each_value_and_draws_it(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(output)
    curve = tmp_path / "curve.svg"
    command = [str(output), "--sweep", "thresholds.min_quality=0.1:0.9:0.1", "--plot", str(curve)]
    assert main(command) == 0
    rows = [line.split()[:5] for line in capsys.readouterr().out.splitlines()[1:10]]
    assert [(float(value), int(kept), int(to_measure)) for value, kept, to_measure, _, _ in rows] == [
        (round(0.1 * i, 1), 10 - max(i, 3), max(3 - i, 0)) for i in range(1, 10)
    ]
    assert all(int(kept) + int(new) + int(rejected) == 10 for _, kept, new, rejected, _ in rows)
    drawn = curve.read_text()
    assert drawn.startswith("<svg ")
    assert drawn.count("<circle") == 18
    assert "thresholds.min_quality" in drawn
    assert contents(output) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("thresholds.min_quality=0.1:0.9", "expected thresholds.KEY=FROM:TO:STEP"),
        ("thresholds.min_quality=0.1:0.9:0", "FROM not above TO and at most 200 values"),
        ("thresholds.min_quality=0.9:0.1:0.1", "FROM not above TO and at most 200 values"),
        ("thresholds.min_qualty=0.1:0.9:0.1", "did you mean min_quality?"),
        ("resample.bins=1:9:1", "expected thresholds.KEY=FROM:TO:STEP"),
    ],
)
def test_a_wrong_sweep_is_one_line(output: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(output), "--sweep", text]) == 2
    assert said in capsys.readouterr().err
