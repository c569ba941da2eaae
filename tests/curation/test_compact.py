"""Merged measurement files say what the many said, also when merging is cut short anywhere."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation import compact as module
from curation.compact import compact
from curation.outputs import write_outputs
from curation.store import stage_folder
from manifests.storage import Remote
from tests.curation.made import Made, clip, config


def many_files(folder: Path) -> tuple[Made, list[Path]]:
    """Forty files a stage; one clip failed and was measured again, one measured twice with other values."""
    made = Made(config(folder))
    clips = [clip(f"{i}.mp4") for i in range(40)]
    made.listing(clips)
    for number, one in enumerate(clips):
        again = {"quality": {"quality_score": 0.4 + number / 100}}
        if number == 20:
            made.measure(clips[3], **again)
            made.measure(clips[4])
        failed = {"quality": {"error": "storage went away", "transient": True}}
        made.measure(one, **(failed if number == 4 else again))
        made.recorder.flush()
    names = [(stage.name, made.engines[stage.name]["fingerprint"]) for stage in made.read().stages]
    return made, [stage_folder(made.output, *name) for name in names]


def outputs(made: Made) -> list[bytes]:
    with made.read() as measurements:
        write_outputs(made.config, made.engines, measurements)
    return [path.read_bytes() for path in sorted(made.output.glob("*/part-*.parquet"))]


def rows(folder: Path) -> list[dict[str, object]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_all_rows_stay_in_their_order_and_the_outputs_the_same(tmp_path: Path) -> None:
    made, folders = many_files(tmp_path)
    before, expected = [rows(folder) for folder in folders], outputs(made)
    compact(folders, tmp_path)
    assert [len(list(folder.iterdir())) for folder in folders] == [1] * len(folders)
    assert [rows(folder) for folder in folders] == before
    assert outputs(made) == expected


def test_objects_are_merged_as_files_are(tmp_path: Path, bucket: Remote) -> None:
    _, folders = many_files(tmp_path)
    for path in sorted(folders[0].iterdir()):
        (bucket / "header" / "f" / path.name).upload(path)
    compact([bucket / "header" / "f"], tmp_path / "tables")
    compact(folders[:1], tmp_path)
    (merged,) = folders[0].iterdir()
    (found,) = (bucket / "header" / "f").entries()
    assert found.name == merged.name
    assert (bucket / "header" / "f" / found.name).read_bytes() == merged.read_bytes()


@pytest.mark.parametrize("survived", [0, 1, 17])
def test_killed_while_it_removes_files_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    made, folders = many_files(tmp_path)
    expected = outputs(made)
    removed: list[Path] = []
    unlink = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if not path.name.endswith(".tmp"):
            if len(removed) == survived:
                raise KeyboardInterrupt
            removed.append(path)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        compact(folders, tmp_path)
    monkeypatch.undo()
    assert len(removed) == survived
    assert outputs(made) == expected
    compact(folders, tmp_path)
    assert outputs(made) == expected


def test_large_files_and_few_files_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folders = many_files(tmp_path)
    names = sorted(folders[0].iterdir())
    monkeypatch.setattr(module, "LEAST", 41)
    compact(folders[:1], tmp_path)
    assert sorted(folders[0].iterdir()) == names
    monkeypatch.setattr(module, "LEAST", 2)
    monkeypatch.setattr(module, "LARGEST", 10 * names[0].stat().st_size)
    compact(folders[:1], tmp_path)
    assert 4 <= len(list(folders[0].iterdir())) <= 6
