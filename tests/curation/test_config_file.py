from pathlib import Path
from typing import Any

import pytest
import yaml

from curation.config import Config
from curation.config_file import load
from curation.decide import load_decided
from curation.errors import ConfigError
from curation.run import main
from curation.summary import save_config


def write(tmp_path: Path, **changes: Any) -> Path:
    (tmp_path / "clips").mkdir(exist_ok=True)
    raw: dict[str, Any] = {
        "output": "out",
        "profile": "embedded",
        "sources": [{"name": "talks", "kind": "folder", "root": "clips"}],
    }
    raw |= changes
    path = tmp_path / "sources.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in raw.items() if v is not None}))
    return path


def test_paths_are_relative_to_the_file_and_the_profile_fills_the_rest(tmp_path: Path) -> None:
    config = load(write(tmp_path))
    assert config.output == str(tmp_path / "out")
    assert config.sources[0].root == str(tmp_path / "clips")
    assert config.thresholds["min_side"] == 512
    assert config.thresholds["min_duration_s"] == 3.75
    assert config.thresholds["max_text_area"] == 0.02
    assert [c.engine for c in config.stages if c.stage in ("face", "motion")] == ["dlib", "dis"]


def test_overrides_reach_every_depth(tmp_path: Path) -> None:
    overrides = ("thresholds.min_side=480", "frames.fps=8", "stages.motion.preset=fast", "sources.0.name=other")
    config = load(write(tmp_path), overrides, output="elsewhere")
    assert config.thresholds["min_side"] == 480
    assert config.frames.fps == 8
    assert config.thresholds["min_duration_s"] == 15 / 8
    assert next(c for c in config.stages if c.stage == "motion").params["preset"] == "fast"
    assert config.sources[0].name == "other"
    assert config.output == str(Path.cwd() / "elsewhere")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"outputs": "x"}, "outputs: unknown key; did you mean output?"),
    ({"frames": {"rate": 4}}, "frames.rate: unknown key; expected one of fps, stride, count, size, window, crop"),
    ({"frames": {"fps": -4}}, "frames.fps: input should be greater than 0, got -4"),
    ({"frames": {"count": "many"}}, "frames.count: input should be a valid integer"),
    ({"profile": "fancy"}, "profile: input should be 'embedded' or 'paper', got 'fancy'"),
    ({"sources": []}, "sources: list should have at least 1 item"),
    ({"sources": None}, "sources: is missing"),
    ({"sources": [{"name": "a", "kind": "folder"}]}, "sources.0.root: is missing"),
    ({"sources": [{"name": "a", "kind": "folder", "root": "nowhere"}]}, "sources.0.root: no such folder: "),
    ({"sources": [{"name": "a", "kind": "folder", "root": "clips"}] * 2}, "sources.1.name: a is used twice"),
    ({"sources": [{"name": "../a", "kind": "folder", "root": "clips"}]}, "sources.0.name: string should match pattern"),
    ({"stages": {"motoin": {}}}, "stages.motoin: unknown stage; did you mean motion?"),
    ({"stages": {"motion": {"engine": "rafd"}}}, "stages.motion.engine: unknown engine 'rafd'"),
    ({"stages": {"motion": {"speed": 3}}}, "stages.motion.speed: unknown key"),
    ({"thresholds": {"min_sides": 3}}, "thresholds.min_sides: unknown threshold; did you mean min_side?"),
    ({"thresholds": {"min_quality": 3}}, "thresholds.min_quality: expected a number from 0 to 1, got 3"),
    ({"thresholds": {"min_side": -1}}, "thresholds.min_side: expected a number of 0 or more, got -1"),
    ({"thresholds": {"min_side": "big"}}, "thresholds.min_side: input should be a valid number"),
    (
        {"thresholds": {"min_duration_s": 2}},
        "thresholds.min_duration_s: expected at least 3.75, which 16",
    ),
    ({"resample": {"max_repeat": 0}}, "resample.max_repeat: input should be greater than or equal to 1, got 0"),
    ({"output": "clips/out"}, "output: "),
    (
        {"execution": {"groups": [{"stages": ["header", "decode"]}]}},
        "execution.groups: expected every stage once, in order (header, decode, cut, hash",
    ),
    (
        {"execution": {"groups": [{"stages": ["header"], "gpu": 1}]}},
        "execution.groups.0.gpu: unknown key; did you mean gpus?",
    ),
    ({"stages": {"motion": {"engine": ["dis"]}}}, "stages.motion.engine: unknown engine ['dis']"),
    ({"output": "nowhere://bucket/out"}, "output: nowhere://bucket/out: unknown scheme nowhere"),
    ({"output": "gs://bucket/out"}, "output: gs://bucket/out: Please install gcsfs to access Google Storage"),
    (
        {"output": "my bucket://out"},
        "output: expected a local path or a URI such as s3://bucket/folder, got my bucket://out",
    ),
    (
        {"output": "simplecache::s3://bucket/out"},
        "output: simplecache::s3://bucket/out: chained schemes are not supported",
    ),
    ({"storage": {"cache": "s3://bucket/cache"}}, "storage.cache: expected a local path, got s3://bucket/cache"),
    ({"storage": {"cache_gib": 0}}, "storage.cache_gib: input should be greater than 0, got 0"),
    ({"output": "~nobody-of-that-name/out"}, "output: no such home directory: ~nobody-of-that-name/out"),
    ({"execution": {"workers": 0}}, "execution.workers: input should be greater than or equal to 1, got 0"),
]


@pytest.mark.parametrize(("changes", "line"), WRONG, ids=[line[:30] for _, line in WRONG])
def test_a_mistake_is_one_line_with_file_key_and_what_was_expected(
    tmp_path: Path, changes: dict[str, Any], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, **changes)
    assert main([str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{path}: {line}")
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("output: [", "line 1: not valid YAML"),
        ("- a", "expected a mapping with output, profile, sources; got list"),
        ("", "expected a mapping"),
        ("output: a\noutput: b", "line 2: not valid YAML: the key output is given twice"),
        ("resample: {{ data }}", "not valid YAML: a key must be plain text"),
        ("profile: 2024-13-45", "not valid YAML: month must be in 1..12"),
        ("x: !!python/object/apply:os.system [ls]", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "sources.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}:")
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_binary_file_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file or directory"):
        load(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not a UTF-8 text file"):
        load(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("nonsense", "expected KEY=VALUE"),
        ("sources.7.name=x", "expected an index from 0 to 0 in place of 7"),
        ("output.x=1", "output is a value"),
        ("frames.fps=[", "not valid YAML"),
    ],
)
def test_a_wrong_override_says_what_was_expected(tmp_path: Path, override: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        load(write(tmp_path), (override,))


def test_paths_in_rays_temporary_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inside = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    inside.mkdir(parents=True)
    assert main([str(write(inside))]) == 2
    assert "lies in Ray's temporary working directory; give an absolute path" in capsys.readouterr().err


def test_a_saved_configuration_is_the_same_one(tmp_path: Path) -> None:
    config = load(write(tmp_path), ("thresholds.max_text_area=0.1", "stages.motion.preset=fast"))
    output = Path(config.output)
    output.mkdir()
    save_config(output, config, {stage.name: {} for stage, _ in config.stage_table()})
    assert load_decided(output, []) == config
    changed: Config = load_decided(output, ["thresholds.max_text_area=0.2"])
    assert changed.thresholds["max_text_area"] == 0.2


def test_deciding_does_not_take_what_would_need_measuring(tmp_path: Path) -> None:
    config = load(write(tmp_path))
    output = Path(config.output)
    output.mkdir()
    save_config(output, config, {})
    with pytest.raises(ConfigError, match="frames changes what is measured; decide takes thresholds, resample, split"):
        load_decided(output, ["frames.fps=2"])
    with pytest.raises(ConfigError, match=r"no config\.yaml there; expected the output folder of a run"):
        load_decided(tmp_path, [])
