import json
import re
from pathlib import Path
from typing import Any

import pytest

from curation.decide import main
from curation.histograms import histograms
from curation.outputs import decide
from curation.report import share, short
from curation.summary import save_config
from tests.browser import page
from tests.curation.made import Made, clip, config
from tests.media import write_video

HOSTILE = (
    "</style><script>document.title='broken'</script><img src=http://example.com/x onerror=alert(1)>&amp;{{ 7 * 7 }}"
)


def decided(tmp_path: Path, count: int = 6, video: bool = False) -> Path:
    """A run: kept clips of M 0, 5, 10, ... under hostile names, two with too much text, one that failed."""
    made = Made(config(tmp_path))
    kept = [clip(f"{i} {HOSTILE.replace('/', '|')}.mp4") for i in range(count)]
    text = [clip(f"text{i}.mp4") for i in range(2)]
    made.listing([*kept, *text, clip("bad.mp4")])
    for i, one in enumerate(kept):
        made.measure(one, motion={"motion_intensity": 5.0 * i}, caption={"caption": HOSTILE, "action": HOSTILE})
    for i, one in enumerate(text):
        made.measure(one, text={"text_area": 0.1 * (i + 1), "text_frame": 15})
    made.measure(clip("bad.mp4"), ["header", "decode"], decode={"error": HOSTILE})
    made.recorder.flush()
    if video:
        for one in (kept[0], text[0]):
            write_video(tmp_path / "clips" / one.path, frames=150, size=(512, 512), fps=25)
    save_config(made.output, made.config, made.engines)
    assert main([str(made.output)]) == 0
    return made.output / "report.html"


@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_asks_for_nothing_complains_of_nothing_and_shows_hostile_text_as_text(
    tmp_path: Path, width: int
) -> None:
    report = decided(tmp_path, video=True)
    with page(width) as opened:
        opened.goto(report.as_uri())
        seen = opened.inner_text("body")
        size = opened.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        title = opened.title()
        drawn = opened.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert opened.problems == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [report.as_uri()]
    assert title == "Human-Motion: 6 of 9 clips kept"
    assert size[0] == size[1]  # nothing sticks out
    assert seen.count(HOSTILE) == 6 * 2 + 1
    assert drawn[0] == 4 * 128 + 3 * 2  # four frames of the first kept clip
    assert drawn[1:] == [192]  # the one frame that shows the text
    assert "cannot be decoded now: does not exist" in seen


def test_what_the_page_says(tmp_path: Path) -> None:
    said = decided(tmp_path).read_text()
    for text in ("6 of 9 clips kept", "text_area 0.1 &gt; 0.02", "M 25.00", "M 0.00", "too_still", "min_quality"):
        assert text in said, text
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    for stage in summary["stages"].values():
        assert stage["version"].split()[0] in said


def test_stills_stand_after_the_videos_and_take_a_few_places_only(tmp_path: Path) -> None:
    made = Made(config(tmp_path))
    videos = [clip(f"{i:02}.mp4") for i in range(20)]
    stills = [clip(f"{i}.png", kind="image") for i in range(8)]
    made.listing([*videos, *stills])
    for i, one in enumerate(videos):
        made.measure(one, motion={"motion_intensity": float(i)})
    for one in stills:
        made.measure(one, motion={"motion_intensity": 0.0})
    made.recorder.flush()
    save_config(made.output, made.config, made.engines)
    assert main([str(made.output)]) == 0
    said = (made.output / "report.html").read_text()
    assert "12 of 28, from the least motion to the most, then stills, as the trainer sees them." in said
    shown = re.findall(r'<span class="m">(.*?)</span>', said)
    assert shown == [f"M {m}.00" for m in (0, 2, 5, 7, 10, 12, 14, 17, 19)] + ["still"] * 3


def test_a_bar_says_what_it_counts(tmp_path: Path) -> None:
    with page(1400) as opened:
        opened.goto(decided(tmp_path).as_uri())
        said = opened.evaluate("[...document.querySelectorAll('rect title')].map(title => title.textContent)")
        sizes = opened.evaluate(
            "[...document.querySelectorAll('rect.touch')].map(r => r.getBoundingClientRect().height)"
        )
    assert "M 5 to 6: 1" in said
    assert "M 19 and more: 2" in said  # of M 20 and 25
    assert "1: 6 kept, 0 rejected, 2 lost for another reason" in said  # face_count
    assert sum("0 kept, 1 rejected, 0 lost" in one for one in said) == 2  # text_area 0.1 and 0.2
    assert sizes[0] == 109  # the plot less its border, however low the bar


def test_histograms_count_every_clip_that_a_stage_measured(tmp_path: Path) -> None:
    made = Made(config(tmp_path))
    clips = [clip(f"{i}.mp4") for i in range(5)]
    made.listing(clips)
    changes: list[dict[str, Any]] = [{}, {"face": {"face_count": 2}}, {"face": {"face_count": 0}}, {}]
    changes.append({"text": {"text_area": 0.5}})
    for one, change in zip(clips, changes, strict=True):
        made.measure(one, **change)
    with made.read() as measurements:
        decide(made.config, measurements)
        found = {h.column: h for h in histograms(measurements, made.config.thresholds)}
    faces = found["face_count"]
    assert faces.edges == [0.0, 1.0, 2.0, 3.0]
    assert faces.bars == [(0, 1, 0), (2, 0, 1), (0, 1, 0)]  # text is judged before faces
    assert [(limit.reason, faces.place(limit)) for limit in faces.limits] == [
        ("no_face", pytest.approx(1 / 3)),
        ("multiple_faces", pytest.approx(2 / 3)),
    ]
    text = found["text_area"]
    assert 0.02 in text.edges
    assert sum(map(sum, text.bars)) == 5
    assert [bar for edge, bar in zip(text.edges, text.bars, strict=False) if edge >= 0.02 and any(bar)] == [(0, 1, 0)]


def test_the_likeness_of_copies_has_a_histogram_with_its_threshold(tmp_path: Path) -> None:
    made = Made(config(tmp_path))
    clips = [clip(f"{i}.mp4") for i in range(3)]
    made.listing(clips)
    for one, word in zip(clips, (0, 2**8 - 1, 2**64 - 1), strict=True):
        made.measure(one, hash={"frame_hash": [word, 0, 0, 0, 0]})
    with made.read() as measurements:
        decide(made.config, measurements)
        (copies,) = (h for h in histograms(measurements, made.config.thresholds) if h.column == "duplicate_similarity")
    assert [(limit.reason, limit.value) for limit in copies.limits] == [("duplicate", 0.85)]
    assert copies.edges[0] == 0.85
    assert copies.edges[-1] >= 312 / 320
    assert sum(copies.bars[-1]) == 1  # the middle one, 8 of 320 bits from the first
    assert list(map(sum, zip(*copies.bars, strict=True))) == [0, 1, 0]


def test_numbers_are_written_for_people() -> None:
    assert [short(x) for x in (None, 1234, 0.03125, 1e-5, 123456.7, 0.30000001)] == [
        "-",
        "1,234",
        "0.03125",
        "0.00001",
        "123,457",
        "0.3",
    ]
    assert [share(*x) for x in ((0, 9), (9, 9), (1, 3), (1, 10**6), (10**6 - 1, 10**6), (0, 0))] == [
        "0 %",
        "100 %",
        "33.3 %",
        "under 0.1 %",
        "over 99.9 %",
        "0 %",
    ]
