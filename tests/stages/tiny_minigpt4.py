"""A MiniGPT-4 in a size that runs in a test, in the published layouts: untrained, and taught to say what it sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MiniGPT-4 needs torch")
transformers = pytest.importorskip("transformers", reason="MiniGPT-4 needs transformers")
pytest.importorskip("sentencepiece", reason="Vicuna's tokenizer needs sentencepiece")

from benchmarks.minigpt4_files import tiny_config, tiny_llama, train_tokenizer  # noqa: E402
from benchmarks.upstream_layouts import norm  # noqa: E402
from stages import minigpt4, weights  # noqa: E402
from stages.base import Sample  # noqa: E402
from stages.caption_text import ASK_ACTION, ASK_CAPTION, scene  # noqa: E402
from stages.clip import Clip  # noqa: E402
from stages.frames import Frames, FrameSpec  # noqa: E402
from stages.minigpt4 import MiniGPT4, MiniGPT4Params  # noqa: E402
from tests import minigpt4_layouts  # noqa: E402
from tests.stages.teaching import learn  # noqa: E402

SIZE = 64
VIT, QFORMER, LLAMA, HEADS = 32, 24, 64, 4  # widths of `tiny_config`
BLUE, RED = (30, 60, 200), (220, 40, 30)
SAYS = {
    BLUE: ("A man is talking in a blue room.", "He is talking."),
    RED: ("A woman smiles at the camera.", "smiling at the camera"),
}


def random_state(layout: dict[str, tuple[int, ...]], seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in layout.items():
        noise = torch.randn(shape, generator=generator)
        state[name] = 1 + 0.1 * noise if "norm" in name.lower() and name.endswith("weight") else 0.15 * noise
    return state


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder in the published layouts, tiny, with random numbers."""
    folder = tmp_path_factory.mktemp("weights")
    files = folder / "minigpt4"
    vicuna = files / "vicuna-7b"
    vicuna.mkdir(parents=True)
    eva = minigpt4_layouts.eva_vit(VIT, blocks=3, hidden=48, image=28) | norm("norm", VIT)
    torch.save(random_state(eva, 1), files / "eva_vit_g.pth")
    qformer = minigpt4_layouts.qformer(QFORMER, layers=2, hidden=40, vision=VIT, queries=5, t5=16)
    torch.save({"model": random_state(qformer, 2), "epoch": 3}, files / "blip2_pretrained_flant5xxl.pth")
    projection = minigpt4_layouts.minigpt4(QFORMER, LLAMA, layers=2, head=LLAMA // HEADS)
    torch.save({"model": random_state(projection, 3)}, files / "prerained_minigpt4_7b.pth")
    answers = [f"{text}###" for texts in SAYS.values() for text in texts]
    train_tokenizer(vicuna, ["This is a frame of a video of a person.", "a ### b", *answers])
    tiny_llama().save_pretrained(vicuna)
    state = random_state(minigpt4_layouts.vicuna(480, LLAMA, layers=2, hidden=96), 4)
    torch.save(state, vicuna / "pytorch_model.bin")
    return folder


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make `setup` use a weights folder, with the tiny image side in place of BLIP-2's."""

    def use(folder: Path) -> None:
        monkeypatch.setenv(weights.VARIABLE, str(folder))
        llama = transformers.LlamaConfig.from_pretrained(folder / "minigpt4" / "vicuna-7b")
        monkeypatch.setattr(minigpt4, "config_of", lambda vicuna, blip2: tiny_config(llama))

    return use


def engine_of(**params: Any) -> MiniGPT4:
    engine = MiniGPT4(MiniGPT4Params(**{"max_new_tokens": 24, **params}), FrameSpec(size=SIZE))
    engine.setup("cpu")
    return engine


def sample(colour: tuple[int, int, int], frames: int = 16) -> Sample:
    images = np.broadcast_to(np.array(colour, np.uint8), (frames, SIZE, SIZE, 3)).copy()
    decoded = Frames(images, np.arange(frames) / 4.0, (SIZE, SIZE), "pyav")
    return Sample(Clip("talks", f"{colour}.mp4", "video", "1-1"), {"crop": [0.0, 0.0, SIZE, SIZE]}, decoded)


@pytest.fixture(scope="module")
def trained(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder with a Vicuna that was taught, in a minute of a toy's life, what to say of blue and of red."""
    folder = tmp_path_factory.mktemp("trained")
    files, old = folder / "minigpt4", untrained / "minigpt4"
    files.mkdir()
    for name in ("eva_vit_g.pth", "blip2_pretrained_flant5xxl.pth", "prerained_minigpt4_7b.pth"):
        (files / name).symlink_to(old / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(weights.VARIABLE, str(untrained))
        llama = transformers.LlamaConfig.from_pretrained(old / "vicuna-7b")
        patch.setattr(minigpt4, "config_of", lambda vicuna, blip2: tiny_config(llama))
        engine = engine_of()
    teach(engine)
    engine._model.language_model.save_pretrained(files / "vicuna-7b")
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (files / "vicuna-7b" / name).symlink_to(old / "vicuna-7b" / name)
    return folder


def teach(engine: MiniGPT4) -> None:
    """Fit the language model to the answers of `SAYS`, by the engine's own images and prompts."""
    model, tokenizer = engine._model.language_model, engine._tokenizer
    model.init_weights()
    model.requires_grad_(requires_grad=True)
    embed = model.get_input_embeddings()
    grid = sample(BLUE).grid()
    told = scene(grid, engine._params)
    lessons = []
    for colour, (caption, action) in SAYS.items():
        seen = engine._see([sample(colour).grid()[8]])[0].detach()
        for question, answer in (
            (f"{told} {ASK_CAPTION}", caption),
            (f"{told} {ASK_ACTION.format(caption=caption)}", action),
        ):
            lessons.append(
                (seen, *engine.prompt(question), tokenizer(f"{answer}###", add_special_tokens=False).input_ids)
            )
    torch.manual_seed(0)

    def loss() -> Any:
        total = torch.zeros(())
        for seen, before, after, answer in lessons:
            inputs = torch.cat([embed(torch.tensor(before)), seen, embed(torch.tensor(after + answer))])
            logits = model(inputs_embeds=inputs[None, :-1]).logits[0, -len(answer) :]
            total = total + torch.nn.functional.cross_entropy(logits, torch.tensor(answer))
        return total

    learn(model, loss, steps=300)
