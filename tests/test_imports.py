"""Who may import whom, and that nothing heavy is loaded before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "manifests": {"manifests"},
    "flows": {"flows"},
    "stages": {"stages", "flows", "manifests"},
    "curation": {"curation", "stages", "flows", "manifests"},
    "training": {"training", "stages", "flows", "manifests"},
}
HEAVY = {
    "torch",
    "ray",
    "cv2",
    "av",
    "decord",
    "dlib",
    "rapidocr",
    "onnxruntime",
    "skimage",
    "transformers",
    "diffusers",
    "torchvision",
    "pyiqa",
    "easyocr",
    "insightface",
    "open_clip",
    "onnx",
}


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports anywhere."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_they_may(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        forbidden = (imported(path) & set(ALLOWED)) - ALLOWED[package]
        assert not forbidden, f"{path.relative_to(ROOT)} imports {forbidden}"


def test_at_most_two_modules_of_curation_import_ray() -> None:
    users = [path.name for path in (ROOT / "curation").rglob("*.py") if "ray" in imported(path)]
    assert len(users) <= 2, users


def test_the_command_line_loads_nothing_heavy_before_it_runs() -> None:
    code = (
        "import sys; import curation.run, curation.decide, manifests.shards; "
        f"print(*sorted({HEAVY!r} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.split() == []


def test_opencv_is_the_headless_build() -> None:
    import cv2

    assert "GUI:                           NONE" in cv2.getBuildInformation()
