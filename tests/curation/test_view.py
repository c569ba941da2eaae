import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from curation.browsing import Clips
from curation.decide import main
from curation.summary import save_config
from tests.browser import page
from tests.curation.made import Made, clip, config
from tests.media import write_video

HOSTILE = "<img src=x onerror=\"document.title='broken'\">"


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = Made(config(tmp_path))
    clips = [clip(f"{i}.mp4") for i in range(60)]
    made.listing([*clips, clip("link.mp4"), clip("text.mp4")])
    for i, one in enumerate(clips):
        made.measure(one, motion={"motion_intensity": i / 2}, caption={"caption": f"person {i} {HOSTILE}"})
    made.measure(clip("link.mp4"))
    made.measure(clip("text.mp4"), text={"text_area": 0.3})
    made.recorder.flush()
    save_config(made.output, made.config, made.engines)
    assert main([str(made.output)]) == 0
    return made


def paths(clips: Clips, **filters: object) -> list[str]:
    return [row["path"] for row in clips.page(filters, "motion_intensity", False, 0)[1]]


def test_filters(made: Made) -> None:
    clips = Clips(made.config)
    assert clips.choices() == ["kept", "text_overlay"]
    assert clips.page({}, "path", False, 0)[0] == 62
    assert paths(clips, ends=["text_overlay"]) == ["text.mp4"]
    assert paths(clips, text="PERSON 7 ") == ["7.mp4"]
    assert paths(clips, motion_intensity=(1.0, 2.0)) == ["2.mp4", "3.mp4", "4.mp4"]
    assert paths(clips, quality_score=(0.9, None)) == []
    assert [row["path"] for row in clips.page({"ends": ["kept"]}, "motion_intensity", True, 0)[1]][:2] == [
        "59.mp4",
        "58.mp4",
    ]
    assert len(clips.page({}, "path", False, 50)[1]) == 12


def test_only_files_of_clips_below_their_roots_are_served(made: Made, tmp_path: Path) -> None:
    clips = Clips(made.config)
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (tmp_path / "clips" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (tmp_path / "clips" / "0.mp4").write_bytes(b"x")
    assert clips.file(clip("0.mp4").clip_id) == (tmp_path / "clips" / "0.mp4").resolve()
    assert clips.file(clip("link.mp4").clip_id) is None
    assert clips.file(clip("1.mp4").clip_id) is None  # gone
    assert clips.file("../secret.mp4") is None


@pytest.mark.slow
def test_the_page_in_a_browser(made: Made, tmp_path: Path) -> None:
    pytest.importorskip("nicegui")
    write_video(tmp_path / "clips" / "7.mp4", frames=150, size=(512, 512), fps=25)
    port = 20000 + os.getpid() % 10000
    command = [sys.executable, "-m", "curation.view", str(made.output), "--no-browser", "--port", str(port)]
    own = ("PYTEST_CURRENT_TEST", "NICEGUI_SCREEN_TEST_PORT")  # by these NiceGUI takes itself for under test
    server = subprocess.Popen(command, env={k: v for k, v in os.environ.items() if k not in own})
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(url)
                break
            except urllib.error.URLError:
                time.sleep(0.5)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/clip/..%2f..%2fsecret.mp4")
        with page(1400) as opened:
            opened.goto(url)
            opened.get_by_label("text in caption").fill("person 7 ")
            opened.wait_for_selector("text=1 clips")
            assert opened.title() == "Human-Motion"
            assert HOSTILE in opened.inner_text("tbody")
            opened.locator("tbody tr").first.click()
            opened.wait_for_function("document.querySelector('img[src^=\"/flow\"]')?.naturalWidth == 514")
            opened.wait_for_function("document.querySelector('video').readyState >= 2")
            opened.wait_for_selector(".q-dialog video")  # before the table, wherever that is scrolled to
            opened.wait_for_function("document.querySelector('video').currentTime > 0.2")
            opened.get_by_role("button", name="close").click()
            opened.wait_for_selector(".q-dialog", state="hidden")
            outside = [u for u in opened.requests if not u.startswith((url, "data:", "blob:"))]
        assert outside == []
        assert opened.problems == []
    finally:
        server.terminate()
        server.wait()
