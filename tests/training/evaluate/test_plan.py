"""Portraits times prompts, and prompts from a server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.training.evaluate.made import picture
from training.evaluate.commands import main
from training.evaluate.plan import portraits, read_prompts
from training.evaluate.prompts import lines_of
from training.requests import read_batch


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    for seed, name in enumerate(("b.jpg", "a.PNG", "deep/c.webp")):
        picture(tmp_path / "faces" / name, seed)
    (tmp_path / "faces" / "licence.txt").write_text("no picture")
    return tmp_path / "faces"


def test_the_plan_is_every_portrait_with_every_prompt(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.txt").write_text("# 2 prompts\na man in a park\n\n  a man at sea \n")
    out = tmp_path / "plan.jsonl"
    assert main(["plan", str(faces), "--prompts", str(tmp_path / "prompts.txt"), "--out", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [f"{out}: 6 videos", "3 portraits x 2 prompts x 1 intensities = 6 videos"]
    wanted = read_batch(out)  # what training.sample --batch reads
    assert [(r.image.name, r.prompt) for r in wanted[:3]] == [
        ("a.PNG", "a man in a park"),
        ("a.PNG", "a man at sea"),
        ("b.jpg", "a man in a park"),
    ]
    assert {(r.action, r.intensity, r.seed) for r in wanted} == {("", 20.0, 0)}  # Table 1
    assert all(r.image.is_absolute() for r in wanted)
    assert len({r.name() for r in wanted}) == 6


def test_a_plan_in_parts_is_the_same_plan(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one\ntwo\n")
    arguments = ["plan", str(faces), "--prompts", str(tmp_path / "p.txt"), "--intensity", "0", "10"]
    assert main([*arguments, "--out", str(tmp_path / "plan.jsonl")]) == 0
    assert main([*arguments, "--out", str(tmp_path / "part.jsonl"), "--parts", "5"]) == 0
    parts = [read_batch(tmp_path / f"part-{i}.jsonl") for i in range(5)]
    assert [len(part) for part in parts] == [3, 3, 2, 2, 2]
    assert {r.name() for part in parts for r in part} == {r.name() for r in read_batch(tmp_path / "plan.jsonl")}


def test_prompts_by_portrait(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "prompts.jsonl"
    lines = [
        {"image": "deep/c.webp", "prompt": "x"},
        {"image": "a.PNG", "prompt": "y"},
        {"image": "b.jpg", "prompt": "z"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    found = read_prompts(path, faces, portraits(faces))
    assert {picture.name: prompts for picture, prompts in found.items()} == {
        "a.PNG": ["y"],
        "b.jpg": ["z"],
        "c.webp": ["x"],
    }
    for bad, why in (
        ('{"image": "a.PNG"}', "prompts.jsonl:1: expected {"),
        ('{"image": "z.png", "prompt": "x"}', f"prompts.jsonl:1: z.png is no picture of {faces}"),
        ('{"image": "a.PNG", "prompt": "x"}', "prompts.jsonl: has no prompt for b.jpg"),
    ):
        path.write_text(bad)
        assert main(["plan", str(faces), "--prompts", str(path), "--out", str(tmp_path / "o")]) == 2
        assert why in capsys.readouterr().err
    path.with_suffix(".txt").write_text("a man")
    arguments = ["plan", str(faces), "--prompts", str(path.with_suffix(".txt")), "--out", str(tmp_path / "o")]
    assert main([*arguments, "--intensity", "10", "30"]) == 2
    assert "command line: intensity: Input should be less than or equal to 20, not 30.0" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
    assert main(["plan", str(tmp_path / "nowhere"), "--prompts", str(path), "--out", str(tmp_path / "o")]) == 2
    assert capsys.readouterr().err == f"training.evaluate: {tmp_path}/nowhere: is not a folder of portraits\n"


def test_a_template_that_cannot_be_filled_in_is_one_line(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("aiohttp")
    arguments = ["prompts", str(faces), "--base-url", "http://127.0.0.1:9/v1", "--model", "m"]
    arguments += ["--template", str(tmp_path / "t.txt"), "--out", str(tmp_path / "o")]
    for text, why in (("{who}", "KeyError 'who'"), ("{}", "IndexError"), ("{count", "ValueError expected '}'")):
        (tmp_path / "t.txt").write_text(text)
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("training.evaluate: template: braces hold count or known, others are doubled, {{ }}: ")
        assert why in said
        assert said.count("\n") == 1


def test_an_answer_is_read_line_by_line() -> None:
    answer = '1. A man in a park.\n2) "A man at sea."\n- A man in a park.\n\n* A man at home.\n1990s film of a man.'
    assert lines_of(answer, ["A man at home."]) == ["A man in a park.", "A man at sea.", "1990s film of a man."]


class Server(BaseHTTPRequestHandler):
    """Answers with the next five numbers, some of them twice, and fails at first."""

    asked: list[dict[str, Any]]
    failures: int
    given: int

    def do_POST(self) -> None:
        kind = type(self)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind.asked.append(body)
        if kind.failures > 0:
            kind.failures -= 1
            self.send_response(400)
            self.end_headers()
            return
        lines = [f"{i}. Prompt {kind.given + i // 2}" for i in range(5)]
        kind.given += 2
        reply = json.dumps({"choices": [{"message": {"content": "\n".join(lines)}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    pytest.importorskip("aiohttp")
    Server.asked, Server.failures, Server.given = [], 0, 0
    made = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def test_a_server_writes_the_prompts_and_a_stopped_run_goes_on(
    faces: Path, tmp_path: Path, server: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "prompts.jsonl"
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    arguments = ["prompts", str(faces), "--base-url", url, "--model", "m", "--count", "4", "--out", str(out)]
    assert main(arguments) == 0
    first = Server.asked[0]["messages"][0]["content"]
    assert first[0]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert first[1]["text"].startswith("Write 4 prompts for a model")
    assert "Do not repeat these:\nPrompt 0\nPrompt 1" in Server.asked[1]["messages"][0]["content"][1]["text"]
    found = read_prompts(out, faces, portraits(faces))
    assert [len(set(prompts)) for prompts in found.values()] == [4, 4, 4]

    asked = len(Server.asked)
    assert main(arguments) == 0
    assert len(Server.asked) == asked  # nothing is asked again
    kept = out.read_text().splitlines()
    out.write_text("\n".join(kept[:4]))  # as a run that was stopped after the first portrait left it
    Server.failures = 1
    assert main(arguments) == 2
    assert "b.jpg: caption server refused the request: 400" in capsys.readouterr().err
    assert main(arguments) == 0
    assert out.read_text().splitlines()[:4] == kept[:4]
    assert len(read_prompts(out, faces, portraits(faces))) == 3
