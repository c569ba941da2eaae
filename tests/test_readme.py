"""README and examples say what the code does."""

import re
from pathlib import Path

import pytest
import yaml

from curation.config import DUPLICATE, Execution, Resample, Split
from curation.config_file import validate
from curation.outputs import write_outputs
from stages.frames import FrameSpec
from stages.table import STAGES
from tests.curation.made import Made, clip
from tests.curation.made import config as made_config

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_every_reason_of_the_code_stands_in_the_readme_with_its_default(tmp_path: Path) -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (?:`(\w+)` (\S+) )?\|$", README, re.MULTILINE)
    by_stages = [rule for stage in STAGES for rule in stage.rules if rule.threshold != 0.0]
    rules = {rule.reason: rule for rule in [*by_stages, DUPLICATE]}
    assert [reason for reason, _, _ in rows] == list(rules)
    (tmp_path / "clips").mkdir()
    sources = [{"name": "s", "kind": "folder", "root": "clips"}]
    thresholds = validate({"output": "out", "sources": sources}, "x.yaml", tmp_path).thresholds
    for reason, key, default in rows:
        assert key == ("" if isinstance(rules[reason].threshold, float) else rules[reason].threshold)
        if key:
            assert thresholds[key] == float(default.replace("infinite", "inf"))


def test_the_example_with_all_keys_has_all_keys_at_their_defaults() -> None:
    raw = yaml.safe_load((ROOT / "examples" / "all-keys.yaml").read_text())
    config = validate(raw, "all-keys.yaml", ROOT / "examples", check_roots=False)
    for section, model in (("frames", FrameSpec), ("resample", Resample), ("split", Split), ("execution", Execution)):
        assert getattr(config, section) == model(), section
        assert set(raw[section]) | {"groups"} == set(model.model_fields) | {"groups"}, section
    assert config == validate({**raw, "thresholds": {}, "stages": {}}, "x", ROOT / "examples", check_roots=False)


def test_every_engines_parameters_stand_in_their_page_with_their_defaults() -> None:
    page = (ROOT / "docs" / "engines.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (\w+) \| `(\w+)` \| (.*?) ?\| .* \|$", page, re.MULTILINE)
    params = {
        (stage.name, name, field): "" if info.is_required() else yaml.safe_dump(info.default).split("\n")[0]
        for stage in STAGES
        for name, engine in stage.engines.items()
        for field, info in getattr(engine, "Params").model_fields.items()  # noqa: B009
    }
    assert {tuple(row[:3]): row[3] for row in rows} == params
    assert len(rows) == len(params)


@pytest.mark.parametrize("name", ["quickstart.yaml", "all-keys.yaml", "paper-sources.yaml"])
def test_examples_are_valid(name: str) -> None:
    path = ROOT / "examples" / name
    validate(yaml.safe_load(path.read_text()), str(path), path.parent, check_roots=False)


def opening_lines() -> dict[str, str]:
    """The README's one-line ways to open a manifest, by library."""
    lines = re.findall(r"^((\w+)\.[\w.]+\(.*quickstart/manifests.*\))$", README, re.MULTILINE)
    return {library: line for line, library in lines}


@pytest.mark.parametrize("library", ["pandas", "pyarrow", "polars", "duckdb", "datasets"])
def test_manifests_open_in_one_line(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(made_config(tmp_path))
    clips = [clip(f"{i}.mp4") for i in range(3)]
    made.listing(clips)
    for one in clips:
        made.measure(one)
    with made.read() as measurements:
        write_outputs(made.config, made.engines, measurements)
    module = pytest.importorskip(library)
    if library == "pyarrow":
        import pyarrow.parquet  # noqa: F401
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    line = opening_lines()[library].replace("runs/quickstart", str(made.output))
    found = eval(line, {library: module})
    rows = found.fetchall() if library == "duckdb" else found
    assert len(rows) == 3
    names = {"duckdb": "columns", "datasets": "column_names", "pyarrow": "column_names"}.get(library, "columns")
    assert {"clip_id", "motion_intensity", "face_boxes"} <= set(getattr(found, names))


@pytest.mark.slow
def test_manifests_open_with_ray_data(tmp_path: Path) -> None:
    import ray

    made = Made(made_config(tmp_path))
    made.listing([clip("a.mp4")])
    made.measure(clip("a.mp4"))
    with made.read() as measurements:
        write_outputs(made.config, made.engines, measurements)
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        import ray.data

        line = opening_lines()["ray"].replace("runs/quickstart", str(made.output))
        assert [row["path"] for row in eval(line, {"ray": ray}).take_all()] == ["a.mp4"]
    finally:
        ray.shutdown()
