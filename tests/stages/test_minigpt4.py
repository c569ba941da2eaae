"""MiniGPT-4's prompt, and its captions end to end in a tiny size."""

# ruff: noqa: F811 (fixtures)
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stages import minigpt4, weights
from stages.base import ClipError, Measured
from stages.frames import FrameSpec
from stages.minigpt4 import BEFORE_IMAGE, MiniGPT4, MiniGPT4Params
from tests.stages.tiny_minigpt4 import BLUE, RED, SAYS, engine_of, sample, tiny, torch, trained, transformers, untrained  # noqa: F401


def test_the_prompt_is_tokenised_by_parts_with_one_beginning(untrained: Path, tiny: Callable[[Path], None]) -> None:
    tiny(untrained)
    engine = engine_of()
    before, after = engine.prompt("What is this?")
    assert (before + after).count(1) == 1
    assert before[0] == 1
    decode = engine._tokenizer.decode
    assert decode(before[1:]) == BEFORE_IMAGE
    assert decode(after) == "</Img> What is this?###Assistant:"
    tokens = engine._tokenizer.convert_ids_to_tokens(after)
    assert tokens[0].startswith("▁<")  # a new part begins like a new text, as in MiniGPT-4's own tokenisation


def test_random_weights_give_no_caption_but_an_error(untrained: Path, tiny: Callable[[Path], None]) -> None:
    tiny(untrained)
    results = engine_of(retries=1).measure([sample(BLUE), sample(RED)])
    for result in results:
        assert isinstance(result, ClipError)
        assert not result.transient
        assert str(result).startswith("no usable description in 2 answers: the last ")


def test_captions_end_to_end(trained: Path, tiny: Callable[[Path], None]) -> None:
    tiny(trained)
    engine = engine_of()
    generate = engine._model.language_model.generate
    lengths: list[int] = []

    def counting(**kwargs: Any) -> Any:
        tokens = generate(**kwargs)
        lengths.append(tokens.shape[1])
        return tokens

    engine._model.language_model.generate = counting
    colours = [RED, BLUE, BLUE, RED]
    results = engine.measure([sample(colour) for colour in colours])
    expected = {
        BLUE: {"caption": "A man is talking in a blue room.", "action": "talking"},
        RED: {"caption": "A woman smiles at the camera.", "action": "smiling at the camera"},
    }
    assert [r.columns if isinstance(r, Measured) else str(r) for r in results] == [expected[c] for c in colours]
    tokens = {c: engine._tokenizer([f"{a}###" for a in SAYS[c]], add_special_tokens=False).input_ids for c in SAYS}
    assert lengths == [
        max(len(tokens[c][i]) for c in SAYS) for i in (0, 1)
    ]  # two rounds, each over when the longest answer has ended with its "###"
    (alone,) = engine.measure([sample(RED)])
    assert isinstance(alone, Measured)
    assert alone.columns == expected[RED]
    again = engine.measure([sample(colour) for colour in colours])
    assert [r.columns for r in again if isinstance(r, Measured)] == [expected[c] for c in colours]


def test_captions_in_bfloat16(trained: Path, tiny: Callable[[Path], None]) -> None:
    tiny(trained)
    results = engine_of(precision="bfloat16").measure([sample(RED), sample(BLUE)])
    assert [r.columns["action"] if isinstance(r, Measured) else str(r) for r in results] == [
        "smiling at the camera",
        "talking",
    ]


def test_an_answer_ends_at_its_stop_however_that_is_tokenised(untrained: Path, tiny: Callable[[Path], None]) -> None:
    tiny(untrained)
    engine = engine_of()
    tokenizer = engine._tokenizer
    stop = transformers.StopStringCriteria(tokenizer, [minigpt4.STOP])
    talking = tokenizer("talking", add_special_tokens=False).input_ids
    for pieces in (["▁###"], ["##", "#"], ["▁", "##", "#"]):
        ids = tokenizer.convert_tokens_to_ids(pieces)
        assert tokenizer.unk_token_id not in ids
        assert stop(torch.tensor([[*talking, *ids]]), None).tolist() == [True]
        assert stop(torch.tensor([[*talking, *ids[:-1]]]), None).tolist() == [False]


def test_the_version_names_the_weights(untrained: Path, tiny: Callable[[Path], None]) -> None:
    tiny(untrained)
    engine = MiniGPT4(MiniGPT4Params(), FrameSpec())
    expected = weights.digest(untrained / "minigpt4" / "eva_vit_g.pth")[:16]
    assert f"eva-vit-g={expected}" in engine.version()
    assert "vicuna-7b=" in engine.version()
    assert engine.version().startswith("prompts 2, transformers ")


def test_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"(?s)eva-vit-g: .*blip2-qformer: .*minigpt4-7b: .*vicuna-7b: "):
        engine_of()
    with pytest.raises(ValueError, match=r"expected model.safetensors, or model.safetensors.index.json and its parts"):
        MiniGPT4(MiniGPT4Params(blip2=str(tmp_path)), FrameSpec()).version()


def test_one_picture_only() -> None:
    with pytest.raises(ValidationError, match="expected middle or sheet: MiniGPT-4 reads one picture"):
        MiniGPT4Params(view="frames")
