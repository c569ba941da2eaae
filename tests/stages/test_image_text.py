"""Captions from transformers' image-text-to-text models: a LLaVA and a Qwen2-VL, tiny, through their own processors."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="image-text models need torch")
transformers = pytest.importorskip("transformers", reason="image-text models need transformers")
pytest.importorskip("torchvision", reason="the processors need torchvision")

from stages.base import ClipError, Measured, Sample  # noqa: E402
from stages.caption_text import ASK_ACTION, ASK_CAPTION, scene  # noqa: E402
from stages.clip import Clip  # noqa: E402
from stages.frames import Frames, FrameSpec  # noqa: E402
from stages.image_text import ImageText, ImageTextParams, Shown  # noqa: E402
from tests.stages.teaching import learn  # noqa: E402

SIZE = 64
GREEN, GREY = (20, 180, 40), (120, 120, 120)
SAYS = {
    GREEN: ("A girl is singing on a green stage.", "She is singing."),
    GREY: ("A man looks at the camera.", "looking at the camera"),
}
CHAT = (
    "{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% elif part['type'] == 'video' %}<video>{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


def tokenizer_with(*special: str) -> Any:
    """A byte-level BPE trained on the questions and answers, with these special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>", *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    corpus = [ASK_CAPTION, ASK_ACTION, "USER: ASSISTANT:", *(text for texts in SAYS.values() for text in texts)]
    tokenizer.train_from_iterator(corpus * 5, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        additional_special_tokens=list(special),
    )  # fmt: skip


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA folder with random weights."""
    folder = tmp_path_factory.mktemp("llava")
    tokenizer = tokenizer_with("<image>")
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    vision = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=14
    )
    text = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_id=image_token)
    )
    model.save_pretrained(folder)
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    transformers.LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=CHAT,
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2-VL folder with random weights: it takes videos."""
    folder = tmp_path_factory.mktemp("qwen")
    names = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = tokenizer_with(*names)
    start, end, image, video = tokenizer.convert_tokens_to_ids(list(names))
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
    }  # fmt: skip
    vision = {"depth": 2, "embed_dim": 32, "num_heads": 4, "hidden_size": 64, "mlp_ratio": 2, "patch_size": 14}
    torch.manual_seed(0)
    model = transformers.Qwen2VLForConditionalGeneration(
        transformers.Qwen2VLConfig(
            text_config=text, vision_config=vision, image_token_id=image, video_token_id=video,
            vision_start_token_id=start, vision_end_token_id=end,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    chat = CHAT.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>")
    chat = chat.replace("<video>", "<|vision_start|><|video_pad|><|vision_end|>")
    transformers.Qwen2VLProcessor(
        transformers.Qwen2VLImageProcessor(), tokenizer, transformers.Qwen2VLVideoProcessor(), chat_template=chat
    ).save_pretrained(folder)
    return folder


def engine_of(model: Path, **params: Any) -> ImageText:
    engine = ImageText(ImageTextParams(**{"model": str(model), "max_new_tokens": 24, **params}), FrameSpec(size=SIZE))
    engine.setup("cpu")
    return engine


def sample(colour: tuple[int, int, int], frames: int = 16) -> Sample:
    """A clip of one colour that darkens towards its end."""
    fade = np.linspace(1.0, 0.6, frames)[:, None, None, None]
    images = (np.array(colour) * fade * np.ones((1, SIZE, SIZE, 1))).astype(np.uint8)
    decoded = Frames(images, np.arange(frames) / 4.0, (SIZE, SIZE), "pyav")
    return Sample(Clip("talks", f"{colour}.mp4", "video", "1-1"), {"crop": [0.0, 0.0, SIZE, SIZE]}, decoded)


def reference(engine: ImageText, shown: Shown, question: str) -> str:
    """One question to the model as its documentation does it, alone and without padding."""
    content = [*copy.deepcopy(shown.parts), {"type": "text", "text": question}]
    options = {"do_sample_frames": False} if shown.metadata else {}
    inputs = engine._processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors="pt", processor_kwargs=options,
    )  # fmt: skip
    tokens = engine._model.generate(**inputs, do_sample=False, max_new_tokens=24)
    return engine._processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]


@pytest.mark.parametrize(("view", "pictures"), [("middle", 1), ("sheet", 1), ("frames", 4)])
def test_a_batch_answers_as_each_clip_alone(llava: Path, view: str, pictures: int) -> None:
    engine = engine_of(llava, view=view)
    samples = [sample(GREEN), sample(GREY), sample((200, 10, 10))]
    shown = [engine._show(s, s.grid()) for s in samples]
    assert [len(s.parts) for s in shown] == [pictures] * 3
    questions = [(2, "What is this?"), (0, "Say what the person does in these pictures."), (1, ASK_CAPTION)]
    answers = engine._answer(shown, questions)
    assert answers == [reference(engine, shown[i], question) for i, question in questions]
    assert len(set(answers)) == 3


def test_videos_and_stills_share_a_batch(qwen: Path) -> None:
    engine = engine_of(qwen)
    samples = [sample(GREEN), sample(GREY, frames=1), sample(GREY)]
    shown = [engine._show(s, s.grid()) for s in samples]
    assert [[part["type"] for part in s.parts] for s in shown] == [["video"], ["image"], ["video"]]
    assert shown[0].metadata == {"fps": 4.0, "total_num_frames": 16, "frames_indices": list(range(16))}
    questions = [(1, "What is this?"), (2, ASK_CAPTION), (0, "And what is the person doing here?")]
    assert engine._answer(shown, questions) == [reference(engine, shown[i], question) for i, question in questions]


def test_all_frames_of_a_video_are_seen(qwen: Path) -> None:
    engine = engine_of(qwen)
    seen: list[Any] = []
    generate = engine._model.generate
    engine._model.generate = lambda **inputs: (seen.append(inputs), generate(**inputs))[1]
    engine._answer([engine._show(s, s.grid()) for s in (sample(GREEN),)], [(0, "What is this?")])
    assert seen[0]["video_grid_thw"][:, 0].tolist() == [8]  # Qwen2-VL takes frames in pairs


def test_random_weights_give_no_caption_but_an_error(qwen: Path) -> None:
    results = engine_of(qwen, retries=1).measure([sample(GREEN), sample(GREY, frames=1)])
    for result in results:
        assert isinstance(result, ClipError)
        assert str(result).startswith("no usable description in 2 answers: the last ")


def test_captions_end_to_end(llava: Path, tmp_path: Path) -> None:
    engine = engine_of(llava, view="sheet")
    teach(engine)
    engine._model.save_pretrained(tmp_path)
    engine._processor.save_pretrained(tmp_path)
    engine = engine_of(tmp_path, view="sheet")
    colours = [GREY, GREEN, GREEN, GREY]
    results = engine.measure([sample(colour) for colour in colours])
    expected = {
        GREEN: {"caption": "A girl is singing on a green stage.", "action": "singing"},
        GREY: {"caption": "A man looks at the camera.", "action": "looking at the camera"},
    }
    assert [r.columns if isinstance(r, Measured) else str(r) for r in results] == [expected[c] for c in colours]


def teach(engine: ImageText) -> None:
    """Fit the model to the answers of `SAYS`, by the engine's own pictures and questions."""
    model, processor = engine._model, engine._processor
    lessons = []
    for colour, (caption, action) in SAYS.items():
        one = sample(colour)
        told = scene(one.grid(), engine._params)
        shown = engine._show(one, one.grid())
        for question, answer in (
            (f"{told} {ASK_CAPTION}", caption),
            (f"{told} {ASK_ACTION.format(caption=caption)}", action),
        ):
            chat = [{"role": "user", "content": [*shown.parts, {"type": "text", "text": question}]}]
            inputs = processor.apply_chat_template(
                chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
            target = processor.tokenizer(f"{answer}</s>", add_special_tokens=False, return_tensors="pt").input_ids
            lessons.append((inputs, target))

    def loss() -> Any:
        total = torch.zeros(())
        for inputs, target in lessons:
            ids = torch.cat([inputs["input_ids"], target], dim=1)
            logits = model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits[0, -target.shape[1] - 1 : -1]
            total = total + torch.nn.functional.cross_entropy(logits, target[0])
        return total

    learn(model, loss, steps=400)


def test_a_model_that_takes_no_videos_says_so(llava: Path) -> None:
    with pytest.raises(ValueError, match=r"llava\d+ takes no videos: set view to frames, sheet or middle"):
        engine_of(llava, view="video")


def test_a_model_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"caption: cannot load the model .*nowhere") as caught:
        engine_of(tmp_path / "nowhere")
    assert "\n" not in str(caught.value)


def test_the_version_follows_the_folders_contents(llava: Path) -> None:
    def version() -> str:
        return ImageText(ImageTextParams(model=str(llava)), FrameSpec()).version()

    before = version()
    assert "model=" in before
    extra = llava / "extra.json"
    extra.write_text("{}")
    assert version() != before
    extra.unlink()
    assert version() == before
    assert ImageText(ImageTextParams(model="some/model"), FrameSpec()).version().endswith("model=missing")


@pytest.mark.parametrize("variable", ["HUMAN_MOTION_OFFLINE", "HF_HUB_OFFLINE"])
def test_a_hub_model_that_is_missing_offline_is_one_line(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    engine = ImageText(ImageTextParams(model="some/model"), FrameSpec())
    expected = (
        rf"caption: the model some/model is missing and downloads are off \({variable} is set\): give its folder as"
    )
    with pytest.raises(ValueError, match=expected) as caught:
        engine.download()
    assert "\n" not in str(caught.value)
    assert engine.origin().endswith("/some/model")
