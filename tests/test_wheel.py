"""What is shipped."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"curation", "stages", "flows", "manifests", "training"}


@pytest.mark.slow
def test_the_wheel_holds_the_five_packages_and_nothing_else(tmp_path: Path) -> None:
    uv = Path(sys.executable).parent / "uv"
    build = [str(uv) if uv.exists() else "uv", "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, timeout=200)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == PACKAGES
    for package in PACKAGES:
        assert f"{package}/__init__.py" in names
