"""Measurement files that were damaged: found, set aside, their clips measured anew; on disk and on S3."""

from pathlib import Path

import pytest

from curation.compact import compact
from curation.damaged import DAMAGED, is_sound
from curation.decide import main as decide_main
from curation.store import stage_folder
from manifests.storage import Place, Remote
from tests.curation import fakes
from tests.curation.made import Made, clip, config
from tests.curation.test_storage import curate, files


def damage(content: bytes, how: str) -> bytes:
    """Cut short, or one bit turned where it may go unnoticed: in the middle of a page."""
    middle = len(content) // 3
    return content[:middle] if how == "cut" else content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(("where", "how"), [("disk", "flipped"), ("s3", "cut")])
def test_a_run_sets_a_damaged_file_aside_and_measures_its_clips_anew(
    tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], where: str, how: str
) -> None:
    fakes.install()
    fakes.write_clips(tmp_path / "clips", "a-1.mp4", "b-2.mp4")
    output: Place = tmp_path / "out"
    if where == "s3":
        bucket: Remote = request.getfixturevalue("bucket")
        output = bucket / "out"
    assert curate(tmp_path, tmp_path / "clips", output, "--runner", "in-process") == 0
    before = files(output)
    folder = output / "measurements" / "motion" / fingerprint(output / "measurements" / "motion")
    file = next(iter(folder.glob("*.parquet")))
    (tmp_path / "damaged").write_bytes(damage(file.read_bytes(), how))
    if isinstance(file, Remote):
        file.upload(tmp_path / "damaged")
    else:
        file.write_bytes((tmp_path / "damaged").read_bytes())
    assert decide_main([str(output)]) == 1
    refused = f"stopped: {folder}: {file.name} is damaged; curation.run measures its clips anew\n"
    assert capsys.readouterr().err.endswith(refused)
    assert curate(tmp_path, tmp_path / "clips", output, "--runner", "in-process") == 0
    said = f"{file} is damaged: set aside as {file.name}{DAMAGED}, its clips are measured anew\n"
    assert said in capsys.readouterr().err
    assert (folder / f"{file.name}{DAMAGED}").read_bytes() == (tmp_path / "damaged").read_bytes()
    assert not file.exists()
    assert files(output) == before


def fingerprint(folder: Place) -> str:
    (found,) = folder.entries() if isinstance(folder, Remote) else folder.iterdir()
    return found.name


def test_merged_files_are_found_damaged_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.compact.LEAST", 2)
    made = Made(config(tmp_path))
    for name in ("a.mp4", "b.mp4"):
        made.measure(clip(name))
        made.recorder.flush()
    folder = stage_folder(made.output, "header", made.engines["header"]["fingerprint"])
    compact([folder], tmp_path)
    (file,) = folder.iterdir()
    assert is_sound(file)
    file.write_bytes(damage(file.read_bytes(), "flipped"))
    assert not is_sound(file)


def test_a_damaged_copy_of_a_sound_object_is_fetched_again(tmp_path: Path, bucket: Remote) -> None:
    fakes.install()
    fakes.write_clips(tmp_path / "clips", "a-1.mp4")
    assert curate(tmp_path, tmp_path / "clips", bucket / "out", "--runner", "in-process") == 0
    before = files(bucket / "out")
    copies = list((tmp_path / "cache" / "tables").glob("*/motion/*/*"))
    assert len(copies) == 1
    copies[0].write_bytes(damage(copies[0].read_bytes(), "flipped"))
    assert decide_main([str(bucket / "out")]) == 0
    assert files(bucket / "out") == before
