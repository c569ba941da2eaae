"""What untrusted files and names must not reach: pickles, shells, addresses, the terminal.

Elsewhere: paths that leave their root in tests/curation/test_sources_*.py and test_view.py; sizes in
tests/stages/test_hostile.py, and of indexes in test_sources_celebv.py; text on pages in test_report.py and
test_export.py; hostile file names and contents through a whole run in test_interruption.py.
"""

import ast
import io
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from curation.errors import shown
from curation.summary import print_summary
from manifests.storage import place

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("curation", "stages", "flows", "manifests", "training")
PICKLES = {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}


def calls() -> Iterator[tuple[str, str, dict[str, str]]]:
    """Of every call in the packages: where it stands, what is called, and its keyword arguments."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    keywords = {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg}
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), keywords


def test_nothing_is_loaded_that_could_run_code() -> None:
    seen = set()
    for where, name, keywords in calls():
        assert name.partition(".")[0] not in PICKLES, where
        assert name not in ("eval", "exec"), where
        assert "allow_pickle" not in keywords, where  # numpy's default refuses them
        assert keywords.get("trust_remote_code", "False") == "False", where
        if name == "torch.load":
            assert keywords.get("weights_only") == "True", where
        if name == "yaml.load":
            assert where.startswith("curation/yaml_file.py:"), where  # with a loader made from SafeLoader
        seen.add(name)
    assert {"torch.load", "yaml.load", "np.load"} <= seen
    from curation.yaml_file import _Loader

    assert any(base.__name__ == "SafeLoader" for base in _Loader.__mro__)


def test_a_flow_file_that_holds_a_pickle_is_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    content = io.BytesIO()
    np.savez(content, magnitude=np.array([Bomb()], dtype=object), allow_pickle=True)
    with np.load(io.BytesIO(content.getvalue())) as stored, pytest.raises(ValueError, match="allow_pickle=False"):
        stored["magnitude"]
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Bomb()))
    assert (tmp_path / "ran").exists()


def test_no_shell_is_used_and_addresses_are_opened_in_one_place() -> None:
    for where, name, keywords in calls():
        assert keywords.get("shell", "False") == "False", where
        assert name not in ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"), where
        if name.endswith(("urlopen", "urlretrieve")):
            assert where.startswith("curation/weights.py:"), where  # addresses of the table of model files
        assert not name.startswith(("requests.", "httpx.", "http.client.")), where


@pytest.mark.parametrize("uri", ["nowhere://a", "zip::s3://bucket/a.zip", "simplecache::http://host/a"])
def test_schemes_that_are_unknown_or_chained_are_refused(uri: str) -> None:
    with pytest.raises(ValueError, match=r"unknown scheme|chained schemes are not supported"):
        place(uri)


def test_a_terminal_obeys_no_file_name(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b]0;owned\x07\r\x9b2J\n\u202egpj"
    assert shown(hostile) == "\\x1b]0;owned\\x07\\r\\x9b2J\\n\\u202egpj"
    assert shown("émoji 😀 ok") == "émoji 😀 ok"
    counts = {"inputs": 1, "kept": 0, "rejected": 0, "failed": 1, "to_measure": 0}
    error = {"stage": "decode", "source": "s", "path": hostile, "error": f"frame {hostile} is missing"}
    summary = {**counts, "funnel": [], "stages": {}, "mix": {}, "errors": [error], "ignored_files": {hostile: 1}}
    print_summary(summary, Path("out"))
    out = capsys.readouterr().out
    assert "owned" in out
    assert all(c.isprintable() or c == "\n" for c in out)
