"""Validation holds whole videos, and all videos that show one person or hold copies of one clip."""

from pathlib import Path
from typing import Any

from curation.outputs import write_outputs
from manifests.shards import read_manifest
from stages.clip import Entry
from tests.curation.made import Made, clip, config
from tests.curation.test_duplicates import hashes, like


def splits(made: Made) -> dict[str, str]:
    with made.read() as measurements:
        write_outputs(made.config, made.engines, measurements)
    rows = [*read_manifest(made.output).to_pylist(), *read_manifest(made.output / "rejected").to_pylist()]
    return {row["path"]: row["split"] for row in rows}


def people(folder: Path, count: int, videos: int, faces: bool = True, **changes: Any) -> Made:
    """`count` people in `videos` videos each, named <person>-<video>.mp4."""
    made = Made(config(folder, split={"val_fraction": 0.3}, **changes))
    names = [f"{person}-{video}.mp4" for person in range(count) for video in range(videos)]
    made.listing(clip(name) for name in names)
    for name in names:
        axis = [0.0] * count
        axis[int(name.split("-")[0])] = 1.0
        made.measure(clip(name), face={"face_embedding": axis} if faces else {})
    return made


def test_a_person_is_on_one_side_and_as_many_people_are_held_out_as_asked(tmp_path: Path) -> None:
    found = splits(people(tmp_path, 150, 4))
    of_person: dict[str, set[str]] = {}
    for path, split in found.items():
        of_person.setdefault(path.split("-")[0], set()).add(split)
    assert all(len(sides) == 1 for sides in of_person.values())
    assert 30 <= sum(sides == {"val"} for sides in of_person.values()) <= 60  # 45 expected, whatever the videos


def test_without_faces_the_videos_are_split_one_by_one(tmp_path: Path) -> None:
    found = splits(people(tmp_path, 30, 4, faces=False))
    persons = {path.split("-")[0] for path in found}
    assert any(len({found[f"{person}-{video}.mp4"] for video in range(4)}) == 2 for person in persons)


def test_growing_data_moves_hardly_anyone(tmp_path: Path) -> None:
    before = splits(people(tmp_path, 100, 4))
    after = splits(people(tmp_path, 100, 5, output=str(tmp_path / "grown")))
    moved = {path.split("-")[0] for path, split in before.items() if after[path] != split}
    assert len(moved) <= 20  # 2 f (1 - f) / (k + 1) = 8.4 % of the people expected


def test_all_clips_of_one_video_are_on_one_side_whichever_source_cut_them(tmp_path: Path) -> None:
    made = Made(config(tmp_path, split={"val_fraction": 0.5}))
    names = [f"{source}/{video}-{n}.mp4" for source in ("celebv", "vfhq") for video in range(40) for n in range(3)]
    clips = {name: clip(name, entry=Entry(name.split("/")[1].split("-")[0])) for name in names}
    made.listing(clips.values())
    for one in clips.values():
        made.measure(one)
    found = splits(made)
    of_video = [{side for name, side in found.items() if f"/{video}-" in name} for video in range(40)]
    assert all(len(sides) == 1 for sides in of_video)
    assert 12 <= of_video.count({"val"}) <= 28


def test_the_videos_of_two_sources_that_hold_a_copy_are_on_one_side(tmp_path: Path) -> None:
    rows = hashes(40, seed=1)
    made = Made(config(tmp_path, split={"val_fraction": 0.5}))
    names = [f"{source}/{i}.mp4" for source in "ab" for i in range(40)]
    made.listing(clip(name) for name in names)
    for name in names:
        made.measure(clip(name), hash=like(rows[int(name[2:-4])], 4 if name[0] == "b" else 0))
    found = splits(made)
    assert len(found) == 80
    assert {found[f"a/{i}.mp4"] for i in range(40)} == {"train", "val"}
    assert all(found[f"a/{i}.mp4"] == found[f"b/{i}.mp4"] for i in range(40))
