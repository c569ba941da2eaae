import os
from collections import Counter
from pathlib import Path

import pytest

from curation.config import FolderSource
from curation.sources.folder import list_folder
from stages.clip import Clip


def listed(root: Path) -> tuple[dict[str, Clip], Counter[str]]:
    ignored: Counter[str] = Counter()
    clips = list(list_folder(FolderSource(name="s", kind="folder", root=str(root)), ignored))
    assert len({c.clip_id for c in clips}) == len(clips)
    return {clip.path: clip for clip in clips}, ignored


def test_videos_and_images_are_found_recursively_and_the_rest_is_counted(tmp_path: Path) -> None:
    for name in ("a.mp4", "sub/b.MOV", "sub/deep/c.PNG", "notes.txt", "sub/README"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    clips, ignored = listed(tmp_path)
    assert {p: c.kind for p, c in clips.items()} == {"a.mp4": "video", "sub/b.MOV": "video", "sub/deep/c.PNG": "image"}
    assert ignored == {"txt": 1, "(none)": 1}
    assert all(c.problem is None for c in clips.values())


def test_what_cannot_be_opened_is_listed_with_what_is_wrong(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "folder.mp4").mkdir(parents=True)
    (root / "folder.mp4" / "inside.mp4").write_bytes(b"x")
    os.mkfifo(root / "fifo.mp4")
    (root / "broken.mp4").symlink_to("nowhere.mp4")
    outside = tmp_path / "outside.mp4"
    outside.write_bytes(b"x")
    (root / "out.mp4").symlink_to(outside)
    (root / "loop.mp4").symlink_to("loop.mp4")
    (root / "alias.mp4").symlink_to(root / "folder.mp4" / "inside.mp4")
    clips, _ = listed(root)
    assert {p: c.problem for p, c in clips.items()} == {
        "folder.mp4": "is a directory, not a video file",
        "folder.mp4/inside.mp4": None,
        "fifo.mp4": "is a FIFO, not a regular file",
        "broken.mp4": "broken link to nowhere.mp4",
        "out.mp4": "link leads out of the source's root",
        "loop.mp4": "cannot be read: Too many levels of symbolic links",
        "alias.mp4": None,
    }


@pytest.mark.parametrize("raw", [b"sp ace.mp4", b"qu'o\"te.mp4", b"new\nline.mp4", "é😀.mp4".encode(), b"\xff\xfe.mp4"])
def test_any_file_name_leads_back_to_its_file(tmp_path: Path, raw: bytes) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + raw)).write_bytes(b"12345")
    clips, _ = listed(tmp_path)
    (clip,) = clips.values()
    clip.path.encode("utf-8")
    assert Path(clip.location(str(tmp_path))).read_bytes() == b"12345"
    assert clip.stamp.startswith("5-")


def test_the_id_is_the_same_under_another_root_and_the_stamp_follows_the_content(tmp_path: Path) -> None:
    for root in ("one", "two"):
        (tmp_path / root).mkdir()
        (tmp_path / root / "a.mp4").write_bytes(b"x" * (1 if root == "one" else 2))
    one, two = (listed(tmp_path / root)[0]["a.mp4"] for root in ("one", "two"))
    assert one.clip_id == two.clip_id
    assert one.stamp != two.stamp
    assert len(one.clip_id) == 32
