"""The sources' published layouts on S3: the same clips as on a local disk, and a run over all of them."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import yaml

from curation.config import SOURCES
from curation.errors import ConfigError
from curation.run import main
from curation.sources import list_source
from manifests.shards import read_manifest
from manifests.storage import Remote
from stages.base import ClipError
from stages.clip import Clip
from stages.decode import Decoder
from stages.frames import FrameSpec
from stages.staging import Cache
from tests.curation import fakes
from tests.curation.layouts import aahq, celebv_hq, celebv_text, entry, vfhq_meta, write_frames
from tests.faulty_s3 import Fault, FaultyS3
from tests.media import write_video

FRAMES, NESTED, VIDEO, GONE = (f"Clip+{name}+P0+C0+F0-1{i}" for i, name in enumerate(("one", "two", "three", "four")))


@pytest.fixture
def layouts(tmp_path: Path) -> dict[str, Path]:
    """Each layout with a clip or more, an entry without its file, and one that is malformed."""
    video = tmp_path / "a-1.mp4"
    write_video(video, frames=20, size=(64, 64), fps=10)
    hq = celebv_hq(tmp_path / "hq", {"a-1": entry(), "b-2": entry(), "c-3": entry(5, 5)}, {"a-1.mp4": video})
    raw_clips = {"a-1": entry(0, 1.5), "b-2": entry(ytb_id="gone")}
    raw = celebv_hq(tmp_path / "raw", raw_clips, {"M2Ohb0FAaJU.webm": video}, "raw")
    text = celebv_text(tmp_path / "text", ["a-1", "b-2"], {"a-1.mp4": video, "b-2.mp4": video})
    (text / "texts" / "emotion" / "b-2.txt").unlink()
    (text / "texts" / "light_dir" / "a-1.txt").write_bytes(b"x" * 70_000)
    vfhq = tmp_path / "vfhq"
    for name in (FRAMES, NESTED, VIDEO, GONE):
        vfhq_meta(vfhq, name, fps=10)
    (vfhq / "meta_info" / "Clip+bad.txt").write_text("x")
    write_frames(vfhq / "processed" / FRAMES, video, 20)
    write_frames(vfhq / "processed" / "two" / NESTED, video, 20)
    (vfhq / "processed" / f"{VIDEO}.mp4").write_bytes(video.read_bytes())
    image = tmp_path / "0.png"
    PIL.Image.new("RGB", (64, 64), "red").save(image)
    art = aahq(tmp_path / "art", {"00-1.png": image, "01-2.png": None})
    return {"celebv_hq": hq, "raw": raw, "celebv_text": text, "vfhq": vfhq, "aahq": art}


@pytest.fixture
def roots(layouts: dict[str, Path], bucket: Remote) -> dict[str, Remote]:
    """The same on S3."""
    for name, root in layouts.items():
        for path in (p for p in root.rglob("*") if p.is_file()):
            (bucket / name / str(path.relative_to(root))).upload(path)
    return {name: bucket / name for name in layouts}


def listed(name: str, root: Path | Remote) -> list[Clip]:
    raw: dict[str, Any] = {"name": "s", "kind": "celebv_hq" if name == "raw" else name, "root": str(root)}
    raw |= {"raw": True} if name == "raw" else {"texts": "texts"} if name == "celebv_text" else {}
    return list(list_source(SOURCES[raw["kind"]].model_validate(raw), Counter()))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["celebv_hq", "raw", "celebv_text", "vfhq", "aahq"])
def test_a_layout_on_s3_lists_the_clips_of_one_on_disk(
    name: str, layouts: dict[str, Path], roots: dict[str, Remote]
) -> None:
    local, remote = listed(name, layouts[name]), listed(name, roots[name])
    assert len(local) >= 2
    assert [replace(clip, stamp="") for clip in remote] == [replace(clip, stamp="") for clip in local]
    assert [bool(clip.stamp) for clip in remote] == [bool(clip.stamp) for clip in local]
    assert [clip.problem is None for clip in remote].count(True) >= 1
    assert any((clip.problem or "").startswith("missing_file") for clip in remote) == (name != "celebv_text")


def test_a_folder_is_asked_for_once_and_not_for_each_clip(roots: dict[str, Remote], s3: FaultyS3) -> None:
    before = s3.seen["GET"] + s3.seen["HEAD"]
    assert len(listed("celebv_hq", roots["celebv_hq"])) == 3
    assert s3.seen["GET"] + s3.seen["HEAD"] - before <= 5  # the index, and the folder's list


def test_frames_on_s3_are_those_on_disk_and_are_fetched_once(
    tmp_path: Path, layouts: dict[str, Path], roots: dict[str, Remote], s3: FaultyS3
) -> None:
    clip = next(clip for clip in listed("vfhq", roots["vfhq"]) if clip.folder_fps is not None)
    cache = Cache(tmp_path / "cache", 1 << 20)
    spec = FrameSpec(fps=4, count=4, size=64)
    with Decoder(60) as decoder:

        def frames(path: str) -> np.ndarray:
            header = decoder.header(path, clip.kind, clip.folder_fps)
            assert header.frame_count == 20
            return decoder.frames(path, clip.kind, spec, header, None, None).images

        expected = frames(clip.location(str(layouts["vfhq"])))
        asked = []
        for _ in range(2):
            before = s3.seen["GET"]
            with cache.clip(clip, str(roots["vfhq"])) as path:
                assert np.array_equal(frames(path), expected)
            asked.append(s3.seen["GET"] - before)
        assert asked[0] > 20 > 3 > asked[1]
        # One frame more, and the listing is out of date.
        frame = layouts["vfhq"] / "processed" / FRAMES / "00000019.png"
        (roots["vfhq"] / clip.path / "00000020.png").upload(frame)
        with pytest.raises(ClipError, match="has changed since it was listed"), cache.clip(clip, str(roots["vfhq"])):
            pass
        again = next(clip for clip in listed("vfhq", roots["vfhq"]) if clip.folder_fps is not None)
        with (
            pytest.raises(ClipError, match="raise storage"),
            Cache(tmp_path / "small", 1000).clip(again, str(roots["vfhq"])),
        ):
            pass


def test_a_packed_file_of_another_make_is_no_folder_of_frames(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("0.png", b"0" * 10_000)
    (tmp_path / "b").write_bytes(b"no zip")
    with Decoder(60) as decoder:
        for name in "ab":
            with pytest.raises(ClipError, match="is not a folder of frames"):
                decoder.header(str(tmp_path / name), "video", 25.0)


def test_a_run_over_all_layouts_ends_on_s3_as_on_disk(
    tmp_path: Path, layouts: dict[str, Path], roots: dict[str, Remote], bucket: Remote
) -> None:
    fakes.install()

    def curate(output: Path | Remote, where: dict[str, Any]) -> list[dict[str, Any]]:
        sources = [{"name": name, "kind": name, "root": str(where[name])} for name in ("celebv_hq", "vfhq", "aahq")]
        raw: dict[str, Any] = {
            "output": str(output),
            "sources": sources,
            "stages": fakes.STAGES,
            "frames": fakes.FRAMES,
            "thresholds": {"min_side": 64, **fakes.THRESHOLDS},
            "execution": {"max_failed_fraction": 1.0},
            "storage": {"cache": str(tmp_path / "cache")},
        }
        path = tmp_path / "sources.yaml"
        path.write_text(yaml.safe_dump(raw))
        assert main([str(path), "--runner", "in-process"]) == 0
        summary = json.loads((output / "summary.json").read_text())
        assert summary["inputs"] == summary["kept"] + summary["rejected"] + summary["failed"] == 10
        rows = read_manifest(output / "manifests").to_pylist() + read_manifest(output / "rejected").to_pylist()
        assert sum(row.get("status") is None for row in rows) == 5
        return rows

    assert curate(bucket / "out", roots) == curate(tmp_path / "out", layouts)


def test_keys_that_no_path_can_hold_fail_by_name_and_are_counted(tmp_path: Path, bucket: Remote) -> None:
    fakes.install()
    video = tmp_path / "a.mp4"
    write_video(video, frames=20, size=(64, 64), fps=10)
    bad = ["/x.mp4", "/deep/x.mp4", "d//y.png", "e///z.mp4", "../up.mp4", "./dot.mp4", "n.mp4//k.mp4"]
    for key in ("a-1.mp4", "d/b-2.mp4", "d//notes.txt", *bad):
        Remote(f"{bucket}/clips/{key}").upload(video)
    source = SOURCES["folder"].model_validate({"name": "s", "kind": "folder", "root": str(bucket / "clips")})
    ignored: Counter[str] = Counter()
    problems = {clip.path: clip.problem for clip in list_source(source, ignored)}  # type: ignore[arg-type]
    said = "its key has a part that is empty, . or .., which no path can hold; rename the object"
    good = {"a-1.mp4": None, "d/b-2.mp4": None, "n.mp4": "is a directory, not a video file"}
    assert problems == dict.fromkeys(bad, said) | good
    assert ignored == {"txt": 1}
    assert Clip("s", "/etc/x.mp4", "video", "").location("/data/clips") == "/data/clips//etc/x.mp4"
    path = tmp_path / "sources.yaml"
    raw: dict[str, Any] = {
        "output": str(tmp_path / "out"),
        "sources": [source.model_dump(exclude_none=True)],
        "stages": fakes.STAGES,
        "frames": fakes.FRAMES,
        "thresholds": {"min_side": 64, **fakes.THRESHOLDS, "max_duplicate_similarity": 1},
        "execution": {"max_failed_fraction": 1.0},
        "storage": {"cache": str(tmp_path / "cache")},
    }
    path.write_text(yaml.safe_dump(raw))
    assert main([str(path), "--runner", "in-process"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["inputs"], summary["kept"], summary["rejected"], summary["failed"]) == (10, 2, 0, 8)
    assert {error["path"]: error["error"] for error in summary["errors"]} == {
        name: problem for name, problem in problems.items() if problem
    }


def test_a_store_that_cannot_search_says_that_it_cannot_list_such_keys(
    bucket: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"a")
    Remote(f"{bucket}/clips/d//y.mp4").upload(tmp_path / "a.mp4")
    monkeypatch.setattr(Remote, "below", lambda self, name: [])
    source = SOURCES["folder"].model_validate({"name": "s", "kind": "folder", "root": str(bucket / "clips")})
    (clip,) = list_source(source, Counter())  # type: ignore[arg-type]
    assert clip.path == "d//"
    assert clip.problem == (
        "its keys have a part that is empty, . or .., which no path can hold, and this store cannot list them; "
        "rename the objects"
    )


def test_what_lacks_or_cannot_be_reached_is_one_line(
    tmp_path: Path, roots: dict[str, Remote], s3: FaultyS3, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sources.yaml"

    def said(**source: Any) -> str:
        sources = [{"name": "s", "kind": "celebv_hq", "root": str(roots["celebv_hq"])} | source]
        path.write_text(yaml.safe_dump({"output": str(tmp_path / "out"), "sources": sources}))
        assert main([str(path)]) == 2
        return capsys.readouterr().err

    assert said(annotations="no.json").endswith(
        "sources.0: celebv_hq expects no.json in s3://bucket/celebv_hq, which has none\n"
    )
    s3.plan = lambda method, path: Fault("403")
    assert "sources.0.root: s3://bucket/celebv_hq cannot be reached: " in said()
    with pytest.raises(ConfigError, match=r"^s3://bucket/celebv_hq/celebvhq_info.json: cannot be read: "):
        listed("celebv_hq", roots["celebv_hq"])
