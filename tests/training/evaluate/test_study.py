"""The study page, clicked through in a browser, and the tally of what it saves."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from tests.browser import page
from tests.training.evaluate.made import listed
from training.evaluate.commands import main
from training.evaluate.study import orders, tally, wilson

HOSTILE = "</script><script>document.title = 'broken'</script><!--<script>"


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    names = {name: tmp_path / name for name in ("ours", "secret-other")}
    for folder in names.values():
        listed(folder, {0.0: 0.0, 10.0: 1.0, 20.0: 2.0}, action=HOSTILE)
    return names


def make(folders: dict[str, Path], out: Path, *more: str) -> int:
    return main(["study", *(f"{name}={folder}" for name, folder in folders.items()), "--out", str(out), *more])


def content(page: Path) -> dict[str, Any]:
    found = re.search(r'<script id="study" type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_page_is_blind_and_seeded(folders: dict[str, Path], tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 5)):
        assert make(folders, tmp_path / f"{name}.html", "--count", "2", "--seed", str(seed)) == 0
    page = (tmp_path / "a.html").read_text()
    assert "secret-other" not in page
    assert str(tmp_path) not in page
    assert not re.search(r"(src|href)=[\"']?http", page)
    assert page == (tmp_path / "b.html").read_text()
    study, other = content(tmp_path / "a.html"), content(tmp_path / "c.html")
    assert [trial["id"] for trial in study["trials"]] == ["t001", "t002"]
    assert [q["title"] for q in study["questions"]] == [
        "Identity consistency",
        "Motion controllability",
        "Overall quality",
    ]
    assert study["trials"] != other["trials"]
    key = json.loads((tmp_path / "a.key.json").read_text())
    assert key["study"] == study["id"] != other["id"]
    assert all(sorted(methods) == ["ours", "secret-other"] for methods in key["methods"].values())
    assert all(source.startswith("data:video/mp4;base64,") for t in study["trials"] for source in t["videos"])


@pytest.mark.parametrize(("methods", "count"), [(2, 2), (2, 40), (3, 7), (5, 20), (6, 4)])
def test_each_method_stands_in_each_place_equally_often(methods: int, count: int) -> None:
    names = [f"m{i}" for i in range(methods)]
    for seed in range(5):
        found = orders(names, count, random.Random(seed))
        assert found == orders(names, count, random.Random(seed))
        assert all(sorted(order) == names for order in found)
        places = Counter((name, place) for order in found for place, name in enumerate(order))
        shown = [places[name, place] for name in names for place in range(methods)]
        assert len(found) == sum(shown) / methods == count
        assert max(shown) - min(shown) <= 1
        if count % methods == 0:
            assert set(shown) == {count // methods}


def test_orders_are_random() -> None:
    draws = [orders(["a", "b", "c"], 3, random.Random(seed)) for seed in range(60)]
    assert len({tuple(map(tuple, found)) for found in draws}) == 12  # both Latin squares of three, rows in any sequence
    pairs = orders(["a", "b"], 40, random.Random(0))
    assert any(one == two for one, two in itertools.pairwise(pairs))  # the last page does not tell the next


def test_the_key_of_a_page_is_balanced(folders: dict[str, Path], tmp_path: Path) -> None:
    assert make(folders, tmp_path / "a.html", "--count", "2") == 0
    first, second = json.loads((tmp_path / "a.key.json").read_text())["methods"].values()
    assert first == second[::-1]


def test_wrong_calls_are_one_line(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(folders, tmp_path / "a.html", "--count", "4") == 2
    assert "4 groups asked for, the methods have 3 in common (portrait, P, A and M)" in capsys.readouterr().err
    assert main(["study", "ours", "--out", str(tmp_path / "a.html")]) == 2
    assert capsys.readouterr().err == "training.evaluate: ours: expected NAME=FOLDER, each name once\n"
    assert main(["study", f"a={folders['ours']}", "--out", str(tmp_path / "a.html")]) == 2
    assert "compares at least two methods" in capsys.readouterr().err


def test_a_person_clicks_through_the_page(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "study.html"
    assert make(folders, file, "--count", "2") == 0
    with page(1000) as seen:
        seen.goto(file.as_uri())

        def press(text: str) -> None:
            seen.get_by_role("button", name=text, exact=True).click()

        def answer(video: int) -> None:
            for radio in seen.locator(f"input[type=radio][value='{video}']").all():
                radio.check()

        seen.fill("#name", "Ann")
        press("Start")
        assert seen.get_by_role("button", name="Next", exact=True).is_disabled()
        answer(0)
        press("Next")
        answer(1)
        press("Back")
        answer(1)
        press("Next")
        press("Finish")
        with seen.expect_download() as download:
            press("Save answers")
        download.value.save_as(tmp_path / "answers.json")
        assert seen.title() == "Video study"
        assert seen.problems == []
        assert not [url for url in seen.requests if url.startswith("http")]
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert answers["participant"] == "Ann"
    assert [(a["trial"], a["question"], a["choice"]) for a in answers["answers"]] == [
        (trial, question, 1) for trial in ("t001", "t002") for question in ("identity", "motion", "quality")
    ]
    capsys.readouterr()
    key = tmp_path / "study.key.json"
    assert main(["tally", str(tmp_path / "answers.json"), "--key", str(key)]) == 0
    assert "1 participants, 2 answers a question" in capsys.readouterr().out


def saved(path: Path, study: str, participant: str, choices: dict[str, int], when: str = "2026-01-01") -> Path:
    answers = [{"trial": t, "question": q, "choice": c} for t, c in choices.items() for q in ("identity", "quality")]
    record = {"study": study, "participant": participant, "started": when, "saved": when, "answers": answers}
    path.write_text(json.dumps(record))
    return path


def test_the_tally_counts_methods_whatever_their_place(tmp_path: Path) -> None:
    key, other = tmp_path / "k.json", tmp_path / "o.json"
    key.write_text(json.dumps({"study": "s", "seed": 0, "methods": {"t1": ["x", "y"], "t2": ["y", "x"]}}))
    other.write_text(json.dumps({"study": "r", "seed": 1, "methods": {"t1": ["y", "x"]}}))
    files = [
        saved(tmp_path / "1.json", "s", "Ann", {"t1": 1, "t2": 1}, "2026-01-01"),
        saved(tmp_path / "2.json", "s", "Ann", {"t1": 0, "t2": 1}, "2026-01-02"),  # Ann again: this one counts
        saved(tmp_path / "3.json", "s", "Bob", {"t1": 0, "t2": 0}),
        saved(tmp_path / "4.json", "r", "Cem", {"t1": 1}),
    ]
    found = tally([key, other], files)
    identity = found["questions"]["identity"]
    assert found["participants"] == 3
    assert identity["answers"] == 5
    assert identity["methods"]["x"]["chosen"] == 4  # Ann twice, Bob and Cem once
    assert identity["methods"]["x"]["interval"] == [pytest.approx(0.3755, abs=1e-3), pytest.approx(0.9638, abs=1e-3)]
    assert found["questions"]["motion"]["methods"]["x"] == {"chosen": 0, "share": None, "interval": None}
    with pytest.raises(ValueError, match=r"4\.json: belongs to no study of the keys given"):
        tally([key], files)
    for text, why in (
        ("[]", "bad.json: is no answers file of a study$"),
        ("{", "bad.json: is no answers file of a study: Expecting"),
        ('{"study": "s", "saved": ""}', "bad.json: is no answers file of a study: lacks participant, answers$"),
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=why):
            tally([key], [tmp_path / "bad.json"])
    with pytest.raises(ValueError, match=r"1\.json: is no key of a study: lacks methods"):
        tally([files[0]], files)
    saved(tmp_path / "3.json", "s", "Bob", {"t1": 2})
    with pytest.raises(ValueError, match=r"3\.json: no such trial, question or choice"):
        tally([key, other], files)


def test_wilsons_interval() -> None:
    low, high = wilson(10, 20)  # Newcombe (1998): 0.299 to 0.701
    assert (round(low, 3), round(high, 3)) == (0.299, 0.701)
    assert wilson(0, 10)[0] == 0.0
    assert round(wilson(0, 10)[1], 3) == 0.278
