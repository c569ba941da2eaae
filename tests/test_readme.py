"""README and examples say what the code does."""

import re
from pathlib import Path

import pytest
import yaml

from curation.config import Execution, Resample, Split
from curation.config_file import validate
from stages.frames import FrameSpec
from stages.table import STAGES

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_every_reason_of_the_code_stands_in_the_readme_with_its_default(tmp_path: Path) -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (?:`(\w+)` (\S+) )?\|$", README, re.MULTILINE)
    rules = {rule.reason: rule for stage in STAGES for rule in stage.rules if rule.threshold != 0.0}
    assert [reason for reason, _, _ in rows] == list(rules)
    sources = [{"name": "s", "kind": "folder", "root": str(tmp_path)}]
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


@pytest.mark.parametrize("name", ["quickstart.yaml", "all-keys.yaml"])
def test_examples_are_valid(name: str) -> None:
    path = ROOT / "examples" / name
    validate(yaml.safe_load(path.read_text()), str(path), path.parent, check_roots=False)
