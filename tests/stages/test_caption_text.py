"""Pictures, dialogue and cleaning that the caption engines share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import caption
from stages.base import ClipError, Measured
from stages.caption_text import (
    MAX_ACTION_WORDS,
    MAX_CAPTION_WORDS,
    AskParams,
    Unusable,
    advance,
    clean_action,
    clean_caption,
    contact_sheet,
    dialogue,
    in_step,
    moments,
    pictures,
    scene,
)

LONG = "A man " + "walks slowly and " * 30 + "stops."


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("A man is talking.", "A man is talking."),
        ("a man is talking", "A man is talking."),
        (
            "The image shows a woman with long hair smiling at the camera.",
            "A woman with long hair smiling at the camera.",
        ),
        ("Sure! Here is a description of the video: A man with glasses dances.", "A man with glasses dances."),
        ("Certainly, the video depicts a girl who talks.", "A girl who talks."),
        ("**Caption:** In this video, a woman nods in a park.", "A woman nods in a park."),
        ('Description: "A child looks at the sky."', "A child looks at the sky."),
        ("A man sits on a chair. He is laugh", "A man sits on a chair."),
        ("A man sits on a chair. Let me know if you need more!", "A man sits on a chair."),
        ("A man sits on a chair. Would you like more details?", "A man sits on a chair."),
        ("<think>Hmm, un homme.</think>A man sits\non a chair.", "A man sits on a chair."),
        ("A woman sings on a stage.###Human: what else?", "A woman sings on a stage."),
        ("</Img> A woman sings on a stage.</s>", "A woman sings on a stage."),
        ("- A woman’s hair moves in the wind.", "A woman's hair moves in the wind."),
        ("This is a picture of a man in a suit who waves.", "A man in a suit who waves."),
        ("A man waves. " + LONG, "A man waves."),
        ("In this image we can see a man who waves.", "A man who waves."),
        ("Based on the image, the man waves. The image also shows a dog.", "The man waves. A dog."),
        ("A man waves at the camera. \ufffd", "A man waves at the camera."),
        ("Hi there! I'm happy to help! A man waves \U0001f44b\U0001f3fd\ufe0f to us.", "A man waves to us."),
        ("A man waves\nHe wears a red coat", "A man waves."),
        ("A man waves\nHe wears a red coat.", "A man waves. He wears a red coat."),
    ],
)
def test_description_is_taken_out_of_the_answer(answer: str, caption: str) -> None:
    assert clean_caption(answer) == caption


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "is empty"),
        ("   \n", "is empty"),
        ("N/A", "is empty"),
        ("Sure!", "is empty"),
        ("###Human: and you?", "is empty"),
        ("Yes.", "is empty"),
        ("A man.", "is empty or shorter than three words"),
        ("Is there a man in the picture?", "is empty or shorter than three words"),
        ("I'm sorry, but I can't describe people.", "refuses to answer"),
        ("As an AI language model, I have no eyes for the picture.", "refuses to answer"),
        ("Please note that no image was provided.", "refuses to answer"),
        ("Un homme est assis dans un parc avec une femme.", "is not English"),
        ("La mujer mira a la cámara y sonríe con los ojos.", "is not English"),
        ("Ein Mann sitzt auf einer Bank und spricht mit einer Frau.", "is not English"),
        ("一个男人在说话，他看着镜头，笑了。", "is not English"),
        ("A man sm\ufffd\ufffd in the image\ufffd", "holds bytes that are no text"),
        ("A man говорит to the camera in the park.", "is not English"),
        ("fjord glyph quartz vexing", "is not English"),
        ("the man and " * 8, "repeats itself"),
        (LONG.replace("walks slowly and", "walks on past trees, cars and houses"), "is longer than 60 words"),
    ],
)
def test_unusable_descriptions_are_named(answer: str, reason: str) -> None:
    with pytest.raises(Unusable) as caught:
        clean_caption(answer)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        ("talking", "talking"),
        ("Talking.", "talking"),
        ("The man is talking to the camera.", "talking to the camera"),
        ("Action: *smiling and nodding*", "smiling and nodding"),
        ("The person appears to be singing into a microphone.", "singing into a microphone"),
        ('The action phrase is "turning her head".', "turning her head"),
        ("A young woman dancing", "dancing"),
        ("Slowly shaking his head", "slowly shaking his head"),
        ("driving a van", "driving a van"),
        ("Smiling at the camera, with her hands folded in front of her body", "smiling at the camera"),
        ("Laughing\n\nI hope this helps!", "laughing"),
        ("talking to a man who is smiling", "talking to a man who is smiling"),
        ("Holding the baby and smiling", "holding the baby and smiling"),
        ("A young woman in a red dress talking", "talking"),
        ("A man is in a park, walking", "walking"),
        ("walking in Los Angeles", "walking in Los Angeles"),
    ],
)
def test_action_phrase_is_taken_out_of_the_answer(answer: str, action: str) -> None:
    assert clean_action(answer) == action


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "is empty"),
        ("None.", "is empty"),
        ("unknown", "is empty"),
        ("Nothing is happening here.", "is empty"),
        ("in the evening", "names no action in -ing"),
        ("a man", "names no action in -ing"),
        ("I cannot determine what happens.", "refuses to answer"),
        ("une femme parlant", "is not English"),
        ("говорит", "is not English"),
        ("talking and walking and looking around and then sitting down again", "is longer than 8 words"),
    ],
)
def test_unusable_actions_are_named(answer: str, reason: str) -> None:
    with pytest.raises(Unusable) as caught:
        clean_action(answer)
    assert str(caught.value) == reason


@given(
    st.text(max_size=300)
    | st.lists(st.sampled_from(["A", "man", "is", "talking.", "-ing\n", "###", "Sure!", "the"])).map(" ".join)
)
def test_whatever_the_answer_the_result_keeps_the_rules(answer: str) -> None:
    for clean, most in ((clean_caption, MAX_CAPTION_WORDS), (clean_action, MAX_ACTION_WORDS)):
        try:
            text = clean(answer)
        except Unusable:
            continue
        assert text == text.strip()
        assert any(c.isalpha() for c in text)
        assert sum(any(c.isalpha() for c in w) for w in text.split()) <= most


def _grid(n: int, size: int = 4) -> np.ndarray:
    return np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, size, size, 3)).copy()


def test_moments_run_from_the_first_frame_to_the_last() -> None:
    assert moments(_grid(16), 4)[:, 0, 0, 0].tolist() == [0, 5, 10, 15]
    assert moments(_grid(16), 1)[:, 0, 0, 0].tolist() == [8]
    assert moments(_grid(3), 4)[:, 0, 0, 0].tolist() == [0, 1, 2]


def test_contact_sheet_reads_like_a_page() -> None:
    frames = np.stack([np.full((2, 3, 3), v, np.uint8) for v in (1, 2, 3)])
    sheet = contact_sheet(frames)
    assert sheet.shape == (4, 6, 3)
    assert sheet[::2, ::3, 0].tolist() == [[1, 2], [3, 0]]


def test_views_show_and_say_the_same() -> None:
    grid = _grid(16)
    shown = {view: pictures(grid, AskParams(view=view)) for view in ("middle", "sheet", "frames", "video")}
    assert [p[0, 0, 0] for p in shown["middle"]] == [8]
    assert shown["sheet"][0][::4, ::4, 0].tolist() == [[0, 5], [10, 15]]
    assert [p[0, 0, 0] for p in shown["frames"]] == [0, 5, 10, 15]
    assert len(shown["video"]) == 16
    assert "4 moments" in scene(grid, AskParams(view="sheet"))
    assert "4 frames" in scene(grid, AskParams(view="frames"))
    assert scene(grid, AskParams(view="middle")) == "This is a frame of a video of a person."


@pytest.mark.parametrize("view", ["middle", "sheet", "frames", "video"])
def test_a_still_is_one_picture(view: str) -> None:
    params = AskParams(view=view)
    assert len(pictures(_grid(1), params)) == 1
    assert scene(_grid(1), params) == "This is a picture of a person."


def test_the_action_is_asked_for_with_the_cleaned_description() -> None:
    talk = dialogue("This is a picture of a person.", retries=1)
    first = advance(talk, None)
    assert isinstance(first, str)
    assert first.startswith("This is a picture of a person. Describe the person")
    second = advance(talk, "Sure! A man is talking")
    assert isinstance(second, str)
    assert '"A man is talking."' in second
    end = advance(talk, "He is talking.")
    assert isinstance(end, Measured)
    assert end.columns == {"caption": "A man is talking.", "action": "talking"}


def test_an_unusable_answer_is_asked_for_again_and_told_why() -> None:
    talk = dialogue("A scene.", retries=1)
    first = advance(talk, None)
    again = advance(talk, "I am sorry.")
    assert again == f"{first} Another answer could not be used: it refuses to answer. Give the description alone."
    assert "What is the person doing?" in str(advance(talk, "A man is talking."))


def test_a_clip_without_usable_answers_ends_as_an_error() -> None:
    talk = dialogue("A scene.", retries=2)
    advance(talk, None)
    advance(talk, "A man is talking.")
    advance(talk, "none")
    advance(talk, "none")
    end = advance(talk, "a chair")
    assert isinstance(end, ClipError)
    assert not end.transient
    assert str(end) == "no usable phrase in 3 answers: the last names no action in -ing: 'a chair'"


def test_dialogues_in_step_keep_their_answers() -> None:
    names = ["man", "woman", "girl"]
    asked: list[list[int]] = []

    def ask(questions: list[tuple[int, str]]) -> list[str]:
        asked.append([i for i, _ in questions])
        answers = []
        for i, question in questions:
            if "What is the person doing" in question:
                assert f"A {names[i]} is here." in question
                answers.append(f"greeting a {names[i]}")
            elif i == 1 and len(asked) < 4:
                answers.append("")
            else:
                answers.append(f"A {names[i]} is here.")
        return answers

    results = in_step([dialogue("A scene.", retries=2) for _ in names], ask)
    assert asked == [[0, 1, 2], [0, 1, 2], [1]]
    assert [r.columns["action"] if isinstance(r, Measured) else str(r) for r in results] == [
        "greeting a man",
        "no usable description in 3 answers: the last is empty: ''",
        "greeting a girl",
    ]


@pytest.mark.parametrize("name", ["minigpt4", "image_text", "openai"])
def test_engines_that_ask_see_the_grid(name: str) -> None:
    engine = caption.STAGE.engines[name]
    assert (engine.needs, engine.reads) == ("grid", ("crop",))  # type: ignore[attr-defined]
    assert issubclass(engine.Params, AskParams)
