"""CelebV-HQ and CelebV-Text in their published layouts."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from curation.config import CelebvHqSource, CelebvTextSource
from curation.errors import ConfigError
from curation.sources import list_source
from stages.clip import Clip, Entry
from tests.curation.layouts import VIDEO, celebv_hq, celebv_text, entry

BOX = (0.1964, 0.0, 0.6922, 0.8815)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"12345")
    return path


def hq(root: Path, **changes: Any) -> list[Clip]:
    source = CelebvHqSource(name="hq", kind="celebv_hq", root=str(root), **changes)
    clips = list(list_source(source, Counter()))
    assert len({clip.clip_id for clip in clips}) == len(clips)
    return clips


def index(root: Path, text: str) -> Path:
    (root / "processed").mkdir(parents=True)
    (root / "celebvhq_info.json").write_text(text)
    return root


def test_cut_clips_are_whole_files_and_the_index_is_provenance(tmp_path: Path, file: Path) -> None:
    root = celebv_hq(tmp_path / "hq", {"b_1": entry(), "a_0": entry(0, 3)}, {"b_1.mp4": file, "a_0.mp4": file})
    clips = hq(root)
    assert [clip.path for clip in clips] == ["processed/b_1.mp4", "processed/a_0.mp4"]
    assert all((clip.span, clip.box, clip.problem, clip.kind) == (None, None, None, "video") for clip in clips)
    assert clips[0].entry == Entry(VIDEO, (81.62, 86.17), BOX)
    assert Path(clips[0].location(str(root))).read_bytes() == b"12345"


def test_entries_without_their_file_are_listed_as_missing(tmp_path: Path, file: Path) -> None:
    clips = hq(celebv_hq(tmp_path / "hq", {"a_0": entry(), "gone_0": entry()}, {"a_0.mp4": file}))
    assert [clip.problem for clip in clips] == [
        None,
        "missing_file: the index names it, the folder does not hold it",
    ]


def test_raw_videos_have_times_and_widened_boxes_applied(tmp_path: Path, file: Path) -> None:
    clips = {"a_0": entry(10, 16), "a_1": entry(20, 28.5), "b_0": entry(ytb_id="other"), "c_0": entry(ytb_id="none")}
    root = celebv_hq(tmp_path / "hq", clips, {f"{VIDEO}.mp4": file, "other.webm": file}, "raw")
    listed = hq(root, raw=True)
    assert [(c.path, c.span) for c in listed[:3]] == [
        (f"raw/{VIDEO}.mp4", (10, 16)),
        (f"raw/{VIDEO}.mp4", (20, 28.5)),
        ("raw/other.webm", (81.62, 86.17)),
    ]
    assert listed[0].box == pytest.approx((0.1764, 0.0, 0.7122, 0.9015))
    assert (listed[3].problem or "").startswith("missing_file")


WRONG: list[tuple[Any, str]] = [
    ("text", "expected an object, got 'text'"),
    ({}, "ytb_id: expected a file name, got None"),
    (entry(ytb_id="../../etc/passwd"), "ytb_id: expected a plain file name, got '../../etc/passwd'"),
    (entry(ytb_id="a\0b"), "ytb_id: expected a plain file name, got 'a\\x00b'"),
    (entry(ytb_id="é" * 200), "ytb_id: expected a file name of at most 255 bytes, got 400"),
    (entry(duration=[1, 2]), "duration.start_sec: expected a number, got None"),
    (entry(duration={"start_sec": "1", "end_sec": 2}), "duration.start_sec: expected a number, got '1'"),
    (entry(duration={"start_sec": True, "end_sec": 2}), "duration.start_sec: expected a number, got True"),
    (entry(5, 5), "duration: expected 0 <= start_sec < end_sec, got 5 and 5"),
    (entry(-1, 5), "duration: expected 0 <= start_sec < end_sec, got -1 and 5"),
    (
        entry(bbox={"top": 0, "bottom": 937, "left": 849, "right": 1872}),
        "bbox: expected fractions of the picture with left < right and top < bottom, "
        "got left 849, right 1872, top 0, bottom 937",
    ),
    (entry(extra=list(range(20_000))), "holds more than 10,000 values"),
    (entry(extra=json.loads("[" * 40 + "]" * 40)), "is nested more than 32 deep"),
]


@pytest.mark.parametrize(("value", "problem"), WRONG, ids=range(len(WRONG)))
def test_a_malformed_entry_is_one_failed_clip(tmp_path: Path, file: Path, value: Any, problem: str) -> None:
    root = index(tmp_path / "hq", json.dumps({"clips": {"a_0": entry(), "bad": value, "c_0": entry()}}))
    for name in ("a_0", "c_0", "bad"):
        (root / "processed" / f"{name}.mp4").write_bytes(b"1")
    clips = hq(root)
    assert [clip.path for clip in clips] == ["processed/a_0.mp4", "celebvhq_info.json#2", "processed/c_0.mp4"]
    assert clips[1].problem == f"entry 2 of celebvhq_info.json is malformed: {problem}"
    assert [clips[0].problem, clips[2].problem] == [None, None]


@pytest.mark.parametrize(
    ("raw", "keys", "problem"),
    [
        (False, ["a", "b", "a.mp4"], "comes twice in the index"),
        (True, ["a", "b", "c"], "is the clip of an earlier entry"),
    ],
)
def test_two_entries_of_one_clip_are_one_clip_and_one_failure(
    tmp_path: Path, file: Path, raw: bool, keys: list[str], problem: str
) -> None:
    entries = {key: entry(start, start + 5) for key, start in zip(keys, [1, 2, 1], strict=True)}
    files = dict.fromkeys([f"{VIDEO}.mp4"] if raw else ["a.mp4", "b.mp4"], file)
    clips = hq(celebv_hq(tmp_path / "hq", entries, files, "raw" if raw else "processed"), raw=raw)
    said = f"entry 3 of celebvhq_info.json is malformed: {problem}"
    assert [clip.problem for clip in clips] == [None, None, said]


def test_keys_cannot_leave_the_folder_or_come_twice(tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(b"x")
    one = json.dumps(entry())
    root = index(tmp_path / "hq", f'{{"clips": {{"../../secret": {one}, "a": {one}, "a": {one}, "": {one}}}}}')
    (root / "processed" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "processed" / "a.mp4").write_bytes(b"x")
    clips = hq(root)
    assert [clip.problem for clip in clips] == [
        "entry 1 of celebvhq_info.json is malformed: expected a plain file name, got '../../secret'",
        None,
        "entry 3 of celebvhq_info.json is malformed: comes twice in the index",
        "entry 4 of celebvhq_info.json is malformed: expected a file name, got ''",
    ]
    (root / "celebvhq_info.json").write_text(json.dumps({"clips": {"link": entry()}}))
    assert hq(root)[0].problem == "link leads out of the source's root"


@pytest.mark.parametrize("link", ["processed", "celebvhq_info.json"])
def test_no_link_in_the_place_of_folder_or_index_leads_out(tmp_path: Path, link: str) -> None:
    root = index(tmp_path / "hq", json.dumps({"clips": {"a": entry()}}))
    (root / link).rename(tmp_path / "elsewhere")
    (root / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=f"/hq/{link}: link leads out of the source's root$"):
        hq(root)


NO_INDEX = [
    ("", "is not valid JSON after entry 0"),
    ("[1, 2]", "after entry 0: expected a JSON object of clips by name"),
    ("{}", "holds no entries; expected a JSON object of clips by name"),
    ('{"clips": {"a": {"x": 1}, "b": {', "is not valid JSON after entry 1"),
    ('{"clips": {"a": nonsense', "is not valid JSON after entry 0"),
    ('{"clips": {"a": "' + "x" * 3_000_000 + '"}}', "after entry 0: one of its values has more than 1,048,576 bytes"),
    ('{"a": ' + "[" * 200_000, "is not valid JSON after entry 0"),
]


@pytest.mark.parametrize(("text", "message"), NO_INDEX, ids=range(len(NO_INDEX)))
def test_a_malformed_index_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    root = index(tmp_path / "hq", text)
    with pytest.raises(ConfigError) as error:
        hq(root)
    assert str(error.value).startswith(f"{root}/celebvhq_info.json: {message}")
    assert "\n" not in str(error.value)


def test_celebv_text_brings_its_texts(tmp_path: Path, file: Path) -> None:
    root = celebv_text(tmp_path / "text", ["a_0_0", "b_1_0"], {"a_0_0.mp4": file, "b_1_0.mp4": file})
    (root / "texts" / "emotion" / "b_1_0.txt").unlink()
    (root / "texts" / "light_dir" / "b_1_0.txt").write_bytes(b"x" * 70_000)
    source = CelebvTextSource(name="t", kind="celebv_text", root=str(root), texts="texts")
    one, two = list_source(source, Counter())
    assert (one.path, one.entry.video_id) == ("processed/a_0_0.mp4", VIDEO)
    assert one.entry.texts["text_action"] == ["action_dur one.", "action_dur two, at length."]
    assert set(one.entry.texts) == {
        *("text_action", "text_emotion", "text_appearance"),
        *("text_light_direction", "text_light_intensity", "text_light_color"),
    }
    assert two.problem == (
        "entry 2 of celebvtext_info.json is malformed: its text texts/light_dir/b_1_0.txt "
        "has 70,000 bytes, more than the 65,536 allowed"
    )
    (root / "texts" / "light_dir" / "b_1_0.txt").write_text("Light from above.\n")
    two = list(list_source(source, Counter()))[1]
    assert "text_emotion" not in two.entry.texts
    assert two.entry.texts["text_light_direction"] == ["Light from above."]
    secret = tmp_path / "secret.txt"
    secret.write_text("a line that is nobody's business")
    (root / "texts" / "emotion" / "b_1_0.txt").symlink_to(secret)
    two = list(list_source(source, Counter()))[1]
    assert two.problem is not None
    assert two.problem.endswith("its text texts/emotion/b_1_0.txt cannot be used: link leads out of the source's root")


# In a process of its own: threads that other tests left behind would be counted too.
PEAK = """
import sys, tracemalloc
from collections import Counter
from curation.config import CelebvHqSource
from curation.sources import list_source

source = CelebvHqSource(name="hq", kind="celebv_hq", root=sys.argv[1])
tracemalloc.start()
failed = sum(clip.problem is not None for clip in list_source(source, Counter()))
print(failed, tracemalloc.get_traced_memory()[1])
"""


def test_a_large_index_is_read_as_a_stream(tmp_path: Path) -> None:
    root = tmp_path / "hq"
    (root / "processed").mkdir(parents=True)
    one = json.dumps(entry(attributes=[0] * 40))
    with (root / "celebvhq_info.json").open("w") as out:
        out.write('{"clips": {')
        out.writelines(f'{"," * (i > 0)}"clip_{i}": {one}' for i in range(20_000))
        out.write("}}")
    said = subprocess.run([sys.executable, "-c", PEAK, str(root)], capture_output=True, text=True, check=True).stdout
    failed, peak = map(int, said.split())
    assert failed == 20_000
    assert peak < 8 << 20  # as Python objects the index would take 40 MB
