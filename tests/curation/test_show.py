from pathlib import Path

import numpy as np
import pytest

from curation.decide import main as decide
from curation.show import main
from curation.summary import save_config
from flows.colours import colour_wheel, flow_colours
from stages.clip import Entry
from tests.curation.made import Made, clip, config
from tests.media import write_video


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = Made(config(tmp_path, frames={"count": 4, "size": 64}))
    made.listing([clip("a.mp4"), clip("small.mp4"), clip("gone.mp4")])
    for name in ("a.mp4", "gone.mp4"):
        made.measure(clip(name), header={"file_duration_s": 6.0, "width": 96, "height": 64})
    made.measure(clip("small.mp4"), ["header"], header={"short_side": 300})
    made.recorder.flush()
    save_config(made.output, made.config, made.engines)
    write_video(tmp_path / "clips" / "a.mp4", frames=150, size=(96, 64), fps=25)
    return made


def test_everything_is_printed_and_the_strip_has_frames_and_flow(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    strip = tmp_path / "strip.png"
    assert main([str(made.output), "a.mp4", "--strip", str(strip)]) == 0
    said = capsys.readouterr().out
    assert f"clip      {clip('a.mp4').clip_id}" in said
    assert "verdict   kept" in said
    assert f"motion: dis, fingerprint {made.engines['motion']['fingerprint']}" in said
    assert "  motion_intensity  5 grid px per step" in said
    assert "below each the flow to the next" in said
    assert Image.open(strip).size == (3 * 192, 2 * 192)


def test_what_index_and_decision_say_of_a_clip(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = clip("a.mp4", entry=Entry(video_id="v7", texts={"text_action": ["she nods", "she smiles"]}))
    made.listing([named, clip("small.mp4")])
    assert decide([str(made.output)]) == 0
    capsys.readouterr()
    assert main([str(made.output), "a.mp4", "--strip", str(tmp_path / "x.png")]) == 0
    said = capsys.readouterr().out
    assert "\nindex of the source\n  video_id          v7\n  text_action       [she nods, she smiles]\n" in said
    decided = said.partition("\ndecided\n")[2].splitlines()
    assert decided[:4] == [
        "  motion_intensity_capped 5",
        "  motion_bin        5",
        "  sample_weight     1",
        "  split             train",
    ]
    assert main([str(made.output), "small.mp4", "--strip", str(tmp_path / "x.png")]) == 0
    said = capsys.readouterr().out
    assert "index of the source" not in said
    assert "motion_bin" not in said


def test_a_rejected_clip_says_why_and_a_lost_file_is_no_crash(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(made.output), clip("small.mp4").clip_id[:12], "--strip", str(tmp_path / "x.png")]) == 0
    said = capsys.readouterr().out
    assert "verdict   rejected at header; resolution: short_side 300 < 512" in said
    assert "  not measured" in said
    assert main([str(made.output), "gone.mp4", "--strip", str(tmp_path / "x.png")]) == 0
    assert "no strip: the clip cannot be decoded now: does not exist" in capsys.readouterr().out
    assert not (tmp_path / "x.png").exists()


def test_an_unknown_clip_is_one_line(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(made.output), "nothing'; DROP"]) == 2
    assert "no clip with the id or path" in capsys.readouterr().err


def test_flow_colours_equal_torchvision() -> None:
    torch = pytest.importorskip("torch")
    utils = pytest.importorskip("torchvision.utils")
    assert np.array_equal(colour_wheel(), utils._make_colorwheel().numpy())
    flow = np.random.default_rng(0).normal(size=(32, 48, 2)).astype(np.float32)
    longest = float(np.hypot(flow[..., 0], flow[..., 1]).max())
    theirs = utils.flow_to_image(torch.tensor(flow).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    assert np.abs(flow_colours(flow, longest).astype(int) - theirs).max() <= 1


def test_no_motion_is_white_and_opposite_directions_differ() -> None:
    assert (flow_colours(np.zeros((1, 1, 2)), 1.0) == 255).all()
    right, left = flow_colours(np.array([[[5.0, 0.0], [-5.0, 0.0]]]), 5.0)[0].astype(int)
    assert right[0] > 200 > right[2]
    assert left[2] > 200 > left[0]
