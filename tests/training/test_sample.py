"""`python -m training.sample` from a checkpoint, and the checkpoint as a diffusers pipeline."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from tests.training.conftest import COLOURS, draw_face  # noqa: E402
from training.metrics.base import Video  # noqa: E402
from training.metrics.control import Control  # noqa: E402
from training.requests import read_batch, request  # noqa: E402
from training.sample import main  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A public-domain portrait that scikit-image carries."""
    from skimage.data import astronaut

    path = tmp_path_factory.mktemp("stills") / "portrait.png"
    Image.fromarray(astronaut()).save(path)
    return path


def call(trained: Path, out: Path, *more: str) -> int:
    return main(["--checkpoint", str(trained), "--out", str(out), "--steps", "2", *more])


def test_a_call_writes_video_gif_strip_and_record(
    trained: Path, portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import av

    more = ["--image", str(portrait), "--prompt", "a face", "--action", "moves left", "--seed", "3"]
    assert call(trained, tmp_path, *more, "--intensity", "0", "20") == 0
    records = [Path(line) for line in capsys.readouterr().out.split()]
    assert [record.name[:16] for record in records] == ["portrait-M0-s3-" + records[0].name[15], "portrait-M20-s3-"]
    about = json.loads(records[1].read_text())
    assert about["request"]["intensity"] == 20
    assert about["request"]["action"] == "moves left"
    how = {"action": "moves left", "detector": "dlib", "captioner": None}
    assert about["used"] == {**how, "guidance": 2.0, "steps": 2, "lambda": 1.0, "alpha": 1.0}
    assert about["image_sha256"] == hashlib.sha256(portrait.read_bytes()).hexdigest()
    strip = np.asarray(Image.open(records[1].with_suffix(".png")))
    shown = Video(np.stack(np.split(strip, 4, axis=1)), 4.0, strip, "", 20.0, grid_size=64)
    assert about["measured_intensity"] == Control().measure(shown).value  # the M that `training.evaluate` finds
    assert about["measured_with"] == "DIS, preset portrait, at 64 px"
    assert about["trained"]["step"] == 6
    with av.open(str(records[1].with_suffix(".mp4"))) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert float(container.streams.video[0].average_rate) == 4.0
    assert np.stack(frames).shape == (4, 16, 16, 3)
    assert Image.open(records[1].with_suffix(".png")).size == (64, 16)
    assert Image.open(records[1].with_suffix(".gif")).n_frames == 4
    made = records[1].stat().st_mtime_ns
    assert call(trained, tmp_path, *more, "--intensity", "20") == 0
    assert records[1].stat().st_mtime_ns == made  # not made again
    # The record is a line of a batch, and makes the same video anew.
    (tmp_path / "again.jsonl").write_text(json.dumps(about["request"]))
    assert (
        main(
            [
                "--checkpoint",
                about["checkpoint"],
                "--out",
                str(tmp_path / "2"),
                "--batch",
                str(tmp_path / "again.jsonl"),
            ]
        )
        == 0
    )
    again = tmp_path / "2" / records[1].name
    assert again.with_suffix(".mp4").read_bytes() == records[1].with_suffix(".mp4").read_bytes()
    # Another checkpoint's video does not pass for it.
    assert call(trained / "checkpoints" / "step-00000004", tmp_path, *more, "--intensity", "20") == 0
    assert len(list(tmp_path.glob("*-M20-*.mp4"))) == 2
    # Where nothing can be written, one line says so.
    capsys.readouterr()
    assert call(trained, portrait, *more) == 1
    assert capsys.readouterr().err.startswith("training.sample: [Errno ")


def test_an_action_that_is_missing_is_taken_from_the_prompt_or_empty_and_it_is_said(
    trained: Path, portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        {"image": str(portrait), "prompt": "A close-up video of a person nodding, while the camera zooms in."},
        {"image": str(portrait), "prompt": "a woman"},
        {"image": str(portrait), "prompt": "a woman", "action": "", "seed": 1},
    ]
    (tmp_path / "batch.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert call(trained, tmp_path, "--batch", str(tmp_path / "batch.jsonl")) == 0
    out, said = capsys.readouterr()
    used = [json.loads(Path(line).read_text())["used"] for line in out.split()]
    assert [(u["action"], u["captioner"]) for u in used] == [("nodding", "kinematic"), ("", "kinematic"), ("", None)]
    assert f"{portrait}: action 'nodding' taken from the prompt 'A close-up video of a person nodding" in said
    assert f"{portrait}: no action, so an empty one: there is none in the prompt 'a woman' (kinematic)" in said
    assert said.count("an empty one") == 1


def test_a_captioner_that_is_set_wrongly_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--image", "a.png", "--captioner", "openai"]
    assert main(["--checkpoint", str(tmp_path), "--out", str(tmp_path), *more]) == 2
    assert "training.sample: --captioner-set base_url: Field required (openai)" in capsys.readouterr().err
    assert main(["--checkpoint", str(tmp_path), "--out", str(tmp_path), *more, "--captioner-set", "model"]) == 2
    assert "training.sample: --captioner-set model: expected key=value" in capsys.readouterr().err


def test_a_caption_server_is_asked_for_the_action_alone(portrait: Path) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    from training.captioner import Captioner

    asked: list[list[dict[str, Any]]] = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body["messages"][-1]["content"])
            answer = json.dumps(
                {"choices": [{"message": {"content": "Waving a hand."}, "finish_reason": "stop"}]}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Keeps quiet."""

    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        settings = [f"base_url=http://127.0.0.1:{server.server_port}/v1", "model=some"]
        captioner = Captioner.of("openai", settings, "cpu")
        action = captioner.action("a woman who greets", np.zeros((64, 64, 3), np.uint8), portrait)
    finally:
        server.shutdown()
        server.server_close()
    assert action == "waving a hand"
    [content] = asked
    assert [part["type"] for part in content] == ["image_url", "text"]
    assert 'It was described like this: "a woman who greets"' in content[1]["text"]


def test_no_face_and_several_faces_are_refused(
    trained: Path, portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Image.open(portrait) as one:
        two = Image.new("RGB", (1024, 512))
        two.paste(one, (0, 0))
        two.paste(one, (512, 0))
    two.save(tmp_path / "two.png")
    Image.new("RGB", (512, 512), (90, 90, 90)).save(tmp_path / "none.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    lines = [json.dumps({"image": name}) for name in ("two.png", "none.png", "broken.png")]
    (tmp_path / "batch.jsonl").write_text("\n".join(lines))
    assert call(trained, tmp_path / "out", "--batch", str(tmp_path / "batch.jsonl")) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("training.sample: ")]
    assert len(said) == 3
    assert said[0] == f"training.sample: {tmp_path}/two.png: 2 faces found, exactly one is needed"
    assert said[1] == f"training.sample: {tmp_path}/none.png: no faces found, exactly one is needed"
    assert said[2].startswith(f"training.sample: {tmp_path}/broken.png: ")
    assert not (tmp_path / "out").exists()


def test_a_batch_file_is_checked_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    path.write_text('{"image": "a.png", "intensity": 5, "lambda": 0.5}\n\n{"image": "b.png", "intensity": 21}\n')
    with pytest.raises(ValueError, match=r"batch.jsonl:3: intensity: Input should be less than or equal to 20, not 21"):
        read_batch(path)
    path.write_text('{"image": "a.png", "intensity": 5, "lambda": 0.5}\n')
    [one] = read_batch(path)
    assert (one.image, one.intensity, one.lambda_) == (tmp_path / "a.png", 5.0, 0.5)
    path.write_text('{"image": "a.png", "motion": 5}')
    with pytest.raises(ValueError, match=r"batch.jsonl:1: motion: Extra inputs are not permitted"):
        read_batch(path)
    with pytest.raises(ValueError, match=r"gone.jsonl: cannot be read: .*No such file or directory"):
        read_batch(tmp_path / "gone.jsonl")
    path.write_text("[1]")
    with pytest.raises(ValueError, match=r"batch.jsonl:1: expected an object with an image"):
        read_batch(path)


def test_names_tell_requests_apart() -> None:
    one = request("x", image="a/face.png", intensity=2.5, seed=7)
    other = request("x", image="b/face.png", intensity=2.5, seed=7)
    assert one.name().startswith("face-M2.5-s7-")
    assert one.name() != other.name()


def test_a_stock_animatediff_pipeline_runs_the_result(trained: Path) -> None:
    from diffusers import AnimateDiffPipeline

    from stages.detection import Detection
    from training import load_pipeline
    from training.sampler import prepared

    pipeline = load_pipeline(trained)
    stock = AnimateDiffPipeline(**{**pipeline.components, "feature_extractor": None})
    stock.set_progress_bar_config(disable=True)
    inputs = prepared(draw_face(COLOURS[0], 32), Detection((18, 18, 46, 46), 1.0), 16)
    kwargs = {
        "ip_adapter_image_embeds": pipeline.conditions(*inputs, "moves left", 10.0, 2.0),
        "num_frames": 4,
        "height": 16,
        "width": 16,
        "num_inference_steps": 2,
        "guidance_scale": 2.0,
        "generator": torch.Generator().manual_seed(5),
        "output_type": "pt",
    }
    with torch.no_grad():
        video = stock("a face", **kwargs).frames[0]
    ours = pipeline.animate(*inputs, "a face", "moves left", 10.0, frames=4, seed=5, guidance=2.0, steps=2)
    assert video.shape == (4, 3, 16, 16)
    assert torch.equal(video, ours)


def test_every_setting_reaches_the_video(trained: Path, portrait: Path) -> None:
    from training.sampler import Sampler

    sampler = Sampler(trained, "cpu", None)
    base: dict[str, Any] = {"image": portrait, "prompt": "a drawn face", "action": "moves left", "steps": 2}
    plain = sampler.make(request("x", **base))
    changes: list[dict[str, Any]] = [
        {"prompt": "dark ground"},
        {"negative_prompt": "dark ground"},
        {"action": "moves right"},
        {"intensity": 20.0},
        {"lambda": 0.0},
        {"alpha": 0.0},
        {"guidance": 4.0},
        {"steps": 3},
        {"seed": 1},
    ]
    for change in changes:
        assert not torch.equal(sampler.make(request("x", **base | change)), plain), change
    assert torch.equal(sampler.make(request("x", **base)), plain)  # nothing of the others is left


def test_guidance_keeps_m_in_both_branches_and_drops_the_rest_in_the_first(trained: Path) -> None:
    from stages.detection import Detection
    from training import load_pipeline
    from training.sampler import prepared

    pipeline = load_pipeline(trained)
    inputs = prepared(draw_face(COLOURS[1], 32), Detection((18, 18, 46, 46), 1.0), 16)
    identity, action, m = pipeline.conditions(*inputs, "moves left", 12.0, 2.0)
    assert identity[0].abs().max() == 0
    assert identity[1].abs().max() > 0
    assert not torch.equal(action[0], action[1])
    assert m.tolist() == [[12.0], [12.0]]
    assert [len(c) for c in pipeline.conditions(*inputs, "moves left", 12.0, 1.0)] == [1, 1, 1]


def test_a_device_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--image", "a.png", "--device", "cuda:99"]
    assert main(["--checkpoint", str(tmp_path), "--out", str(tmp_path), *more]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("training.sample: device cuda:99: ")


def test_loading_what_is_no_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "a.png"
    assert main(["--checkpoint", str(tmp_path), "--image", str(image), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith(f"training.sample: {tmp_path}: not a checkpoint, it has no SHA256SUMS\n")
