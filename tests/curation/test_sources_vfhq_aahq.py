"""VFHQ and AAHQ in their published layouts."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from curation.config import AahqSource, VfhqSource
from curation.errors import ConfigError
from curation.sources import list_source
from stages.clip import Clip, Entry
from tests.curation.layouts import aahq, vfhq_meta

CLIP = "Clip+_-91nXXjrVo+P0+C0+F1537-1825"
OTHER = "Clip+zz+P1+C2+F10-40"


def listed(root: Path, **changes: Any) -> list[Clip]:
    clips = list(list_source(VfhqSource(name="v", kind="vfhq", root=str(root), **changes), Counter()))
    assert len({clip.clip_id for clip in clips}) == len(clips)
    return clips


def frames(folder: Path, count: int = 3) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        (folder / f"{index:08d}.png").write_bytes(b"x")


def test_frames_and_videos_are_found_and_the_meta_is_provenance(tmp_path: Path) -> None:
    vfhq_meta(tmp_path, CLIP)
    vfhq_meta(tmp_path, OTHER, fps=30)
    vfhq_meta(tmp_path, "Clip+nested+P0+C0+F0-100", fps=29.97)
    vfhq_meta(tmp_path, "Clip+none+P0+C0+F0-100")
    frames(tmp_path / "processed" / CLIP)
    frames(tmp_path / "processed" / "nested" / "Clip+nested+P0+C0+F0-100")
    (tmp_path / "processed" / f"{OTHER}.mp4").write_bytes(b"x")
    found = {clip.path: clip for clip in listed(tmp_path)}
    clip = found[f"processed/{CLIP}"]
    assert (clip.kind, clip.folder_fps, clip.span, clip.box, clip.problem) == ("video", 25.0, None, None, None)
    assert clip.entry == Entry("_-91nXXjrVo", (1538 / 25, 1825 / 25), (100 / 1280, 0, 500 / 1280, 400 / 720))
    assert clip.stamp.endswith("-25fps")
    assert found["processed/nested/Clip+nested+P0+C0+F0-100"].folder_fps == 29.97
    assert (found[f"processed/{OTHER}.mp4"].folder_fps, found[f"processed/{OTHER}.mp4"].problem) == (None, None)
    assert (found["processed/Clip+none+P0+C0+F0-100.mp4"].problem or "").startswith("missing_file")
    (tmp_path / "processed" / CLIP / "00000001.png").write_bytes(b"xy")
    assert {c.path: c for c in listed(tmp_path)}[clip.path].stamp != clip.stamp, "a repaired frame is seen"


def test_raw_videos_have_range_and_box_applied(tmp_path: Path) -> None:
    vfhq_meta(tmp_path, CLIP, crop="100 0 500 400")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "_-91nXXjrVo.webm").write_bytes(b"x")
    (clip,) = listed(tmp_path, raw=True)
    assert (clip.path, clip.span) == ("raw/_-91nXXjrVo.webm", (1538 / 25, 1825 / 25))
    assert clip.box == (100 / 1280, 0.0, 500 / 1280, 400 / 720)


WRONG = [
    ("notes.txt", "", "its name: expected Clip+<video>+P<n>+C<n>+F<first>-<last>, got 'notes'"),
    ("Clip+a+P0+C0+F5-6.txt", "", "its name: expected a range of frames, got 5 to 6"),
    (f"{OTHER}.txt", "H: 7\nW: 7\n", "has no line FPS"),
    (f"{OTHER}.txt", "H: 7\nW: x\nFPS: 25\nCROP: 0 0 1 1\n", "W: expected 1 number, got b'x'"),
    (f"{OTHER}.txt", "H: 7\nW: 7\nFPS: nan\nCROP: 0 0 1 1\n", "FPS: expected 1 number, got b'nan'"),
    (f"{OTHER}.txt", "H: 7\nW: 7\nFPS: 0\nCROP: 0 0 1 1\n", "FPS: expected a frame rate of at most 1000, got 0"),
    (f"{OTHER}.txt", "H: 7\nW: 7\nFPS: 25\nCROP: 0 0 1\n", "CROP: expected 4 numbers, got b'0 0 1'"),
    (
        f"{OTHER}.txt",
        "H: 7\nW: 7\nFPS: 25\nCROP: 0 0 9 1\n",
        "CROP: expected a box x0 y0 x1 y1 in the 7x7 picture, got 0 0 9 1",
    ),
    (f"{OTHER}.txt", "H: 7\n" * 300_000, "has 1,500,000 bytes, more than the 1,048,576 allowed"),
]


@pytest.mark.parametrize(("name", "text", "problem"), WRONG, ids=range(len(WRONG)))
def test_a_malformed_meta_file_is_one_failed_clip(tmp_path: Path, name: str, text: str, problem: str) -> None:
    vfhq_meta(tmp_path, CLIP)
    frames(tmp_path / "processed" / CLIP)
    (tmp_path / "meta_info" / name).write_text(text)
    found = {clip.problem for clip in listed(tmp_path)}
    number = sorted([f"{CLIP}.txt", name]).index(name) + 1
    assert found == {None, f"entry {number} of meta_info/{name} is malformed: {problem}"}


def test_folders_that_lead_out_are_refused(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    vfhq_meta(root, CLIP)
    (root / "processed").mkdir()
    frames(outside)
    (root / "processed" / CLIP).symlink_to(outside)
    assert [clip.problem for clip in listed(root)] == ["link leads out of the source's root"]


def test_no_meta_files_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "meta_info").mkdir()
    with pytest.raises(ConfigError, match="holds no meta files"):
        listed(tmp_path)


def test_aahq_images_are_stills_and_those_not_downloaded_are_missing(tmp_path: Path, shared: Path) -> None:
    stills = shared / "stills"
    aahq(tmp_path, {"b.png": stills / "art_0.png", "a.jpg": None, "c.txt": None})
    source = AahqSource(name="aahq", kind="aahq", root=str(tmp_path))
    one, two, three = list_source(source, Counter())
    assert (one.path, one.kind, one.problem) == ("aligned/b.png", "image", None)
    assert one.entry.video_id == "raw_b.png"
    assert (two.problem or "").startswith("missing_file")
    assert three.problem == "entry 3 of AAHQ-dataset.json is malformed: expected an image's file name, got 'c.txt'"
