"""EasyOCR against its own Reader.readtext, on the same files of random weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import upstream_layouts
from stages import weights
from stages.base import Measured, Sample
from stages.clip import Clip
from stages.easyocr_text import EasyOcr, EasyOcrParams
from stages.frames import Frames, FrameSpec
from stages.text import Reading, text_area

torch = pytest.importorskip("torch")
easyocr = pytest.importorskip("easyocr")


def pictures(count: int, h: int = 128, w: int = 160) -> np.ndarray:
    """Coloured noise in patches of several sizes."""
    rng = np.random.default_rng(0)
    layers = [
        np.kron(rng.integers(0, 256, (count, h // s, w // s, 3)), np.ones((1, s, s, 1)))[:, :h, :w] for s in (8, 16, 32)
    ]
    return np.mean(layers, axis=0).astype(np.uint8)


def grey(count: int) -> np.ndarray:
    """Of a coloured picture EasyOCR's several ways in make slightly different grey values for the recogniser."""
    return np.repeat(pictures(count, 160, 192)[..., 1:2], 3, axis=-1)


def biased(state: dict, images: np.ndarray) -> dict:
    """The detector with the last layer scaled so that about 4 % of these images' pixels score as text, none as links:
    random weights as they come see text everywhere or nowhere."""
    from easyocr.craft import CRAFT

    net = CRAFT().eval()
    net.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.45) / 0.225
    with torch.no_grad():
        text = net(x)[0][..., 0]
    low, high = torch.quantile(text.flatten()[::7], torch.tensor([0.9, 0.97]))
    gain = 0.3 / (high - low)
    state["module.conv_cls.8.weight"][0] *= gain
    state["module.conv_cls.8.bias"][0] = (state["module.conv_cls.8.bias"][0] - low) * gain + 0.4
    state["module.conv_cls.8.weight"][1] = 0
    state["module.conv_cls.8.bias"][1] = 0
    return state


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    craft = upstream_layouts.write(upstream_layouts.craft(), folder / "easyocr" / "craft_mlt_25k.pth", seed=1)
    torch.save(biased(torch.load(craft), grey(2)), craft)
    crnn = upstream_layouts.write(upstream_layouts.crnn(97), folder / "easyocr" / "english_g2.pth", seed=2)
    state = torch.load(crnn)
    state["module.Prediction.weight"] *= 10  # sure of itself, else every score is next to nothing
    torch.save(state, crnn)
    for path in (craft, crnn):
        upstream_layouts.own(path, folder)
    return folder


def engine(**params: object) -> EasyOcr:
    built = EasyOcr(EasyOcrParams.model_validate(params), FrameSpec())
    built.setup("cpu")
    return built


@pytest.fixture(scope="module")
def ours(files: Path) -> Iterator[EasyOcr]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(weights.VARIABLE, str(files))
        yield engine()


@pytest.fixture(scope="module")
def batched(ours: EasyOcr) -> list[list[Reading]]:
    """What the engine reads on two pictures that go through the detector together."""
    return ours.read(grey(2))


@pytest.fixture(scope="module")
def reader(files: Path) -> Iterator[object]:
    """EasyOCR's reader as its users build it, from the same files, whose hashes it is told."""
    from easyocr import config

    with pytest.MonkeyPatch.context() as patch:
        for table, name, file in (
            (config.detection_models, "craft", "craft_mlt_25k.pth"),
            (config.recognition_models["gen2"], "english_g2", "english_g2.pth"),
        ):
            md5 = hashlib.md5((files / "easyocr" / file).read_bytes()).hexdigest()
            patch.setitem(table[name], "md5sum", md5)
        yield easyocr.Reader(
            ["en"],
            gpu=False,
            model_storage_directory=str(files / "easyocr"),
            user_network_directory=str(files / "own"),
            download_enabled=False,
            quantize=False,
            verbose=False,
        )


def test_equals_readtext_and_batched_equals_one_by_one(
    ours: EasyOcr, batched: list[list[Reading]], reader: object
) -> None:
    assert min(len(found) for found in batched) >= 5, "parity of nothing would show nothing"
    assert max(score for found in batched for _, _, score in found) > 0.3
    for image, found in zip(grey(2), batched, strict=True):
        (alone,) = ours.read(image[None])
        expected = reader.readtext(image)  # type: ignore[attr-defined]
        assert len(found) == len(alone) == len(expected)
        for one, other, (box, text, score) in zip(found, alone, expected, strict=True):
            for read in (one, other):
                np.testing.assert_allclose(read[0], np.array(box, np.float64), atol=1)
                assert read[1] == text
                assert read[2] == pytest.approx(score, abs=1e-3)


def test_the_detector_sees_red_as_red(tmp_path: Path, ours: EasyOcr, reader: object) -> None:
    (image,) = pictures(1)
    Image.fromarray(image).save(tmp_path / "picture.png")
    expected = [box for box, _, _ in reader.readtext(str(tmp_path / "picture.png"))]  # type: ignore[attr-defined]
    boxes = [box for box, _, _ in ours.read(image[None])[0]]
    np.testing.assert_allclose(boxes, expected, atol=1)
    assert len(boxes) >= 2
    swapped = [box for box, _, _ in ours.read(image[None, ..., ::-1])[0]]
    assert len(swapped) != len(boxes) or np.abs(np.array(swapped) - boxes).max() > 1


def test_one_changed_weight_changes_boxes_or_scores(
    files: Path, tmp_path: Path, ours: EasyOcr, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ours.read(pictures(1))[0]
    for name, key in (
        ("craft_mlt_25k", "module.conv_cls.8.bias"),
        ("english_g2", "module.FeatureExtraction.ConvNet.0.weight"),
    ):
        state = torch.load(files / "easyocr" / f"{name}.pth")
        state[key].view(-1)[0] += 1
        folder = tmp_path / name
        (folder / "easyocr").mkdir(parents=True)
        torch.save(state, folder / "easyocr" / f"{name}.pth")
        upstream_layouts.own(folder / "easyocr" / f"{name}.pth", folder)
        monkeypatch.setenv(weights.VARIABLE, f"{folder}:{files}")
        after = engine().read(pictures(1))[0]
        assert [(box.tolist(), text, score) for box, text, score in after] != [
            (box.tolist(), text, score) for box, text, score in before
        ]


def test_missing_weights_are_all_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"craft_mlt_25k: missing.*\n.*latin_g2: missing"):
        engine(script="latin")
    assert not list(tmp_path.rglob("*.pth")), "nothing is downloaded"


@pytest.mark.parametrize(("script", "name", "classes"), [("latin", "latin_g2", 352), ("en", "english_g2", 97)])
def test_files_of_the_published_layouts_load_strictly(
    script: str, name: str, classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts = {"craft_mlt_25k": upstream_layouts.craft(), name: upstream_layouts.crnn(classes)}
    for file, layout in layouts.items():
        # the published files hold these numbers and less than 100 kB beside
        size = weights.WEIGHTS[file].size
        assert size is not None
        assert 0 < size - 4 * upstream_layouts.parameters(layout) < 100_000
        upstream_layouts.own(upstream_layouts.write(layout, tmp_path / "easyocr" / f"{file}.pth"), tmp_path)
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    reader = engine(script=script).reader
    for network, layout in zip((reader.detector, reader.recognizer), layouts.values(), strict=True):
        loaded = {f"module.{key}": tuple(value.shape) for key, value in network.state_dict().items()}
        assert loaded == layout


def test_the_detectors_batch_size_changes_nothing(ours: EasyOcr, batched: list[list[Reading]]) -> None:
    chunked = EasyOcr(EasyOcrParams(detect_batch=1), FrameSpec())
    chunked.reader = ours.reader
    assert [[text for _, text, _ in found] for found in chunked.read(grey(2))] == [
        [text for _, text, _ in found] for found in batched
    ]


def test_the_area_is_that_of_the_frame_with_most_text_and_of_text_that_counts(
    ours: EasyOcr, batched: list[list[Reading]]
) -> None:
    def sample(images: np.ndarray) -> Sample:
        frames = Frames(images, np.arange(len(images)) / 4, (images.shape[2], images.shape[1]), "pyav")
        return Sample(Clip("s", "a.mp4", "video", "1"), frames=frames)

    small, wide = pictures(1, 64, 64), grey(2)
    samples = [sample(wide[[0]]), sample(small), sample(wide[[0, 1]]), sample(wide[[1, 0]]), sample(wide[[1]])]
    built = EasyOcr(EasyOcrParams(frames=2, min_characters=1, min_score=0.05), FrameSpec())
    built.reader = ours.reader
    results = built.measure(samples)
    areas = [m.columns["text_area"] for m in results]  # type: ignore[union-attr]
    most = [m.columns["text_frame"] for m in results]  # type: ignore[union-attr]
    expected = [text_area(found, wide.shape[1:3], 1, 0.05) for found in batched]
    assert 0 < min(expected) < max(expected) < 1
    assert areas[0] == pytest.approx(expected[0])
    assert areas[2] == areas[3] == pytest.approx(max(expected))
    assert {most[2], most[3]} == {0, 1}
    assert most[2] == expected.index(max(expected))
    assert areas[4] == pytest.approx(expected[1])
    strict = EasyOcr(EasyOcrParams(min_score=1), FrameSpec())
    strict.reader = ours.reader
    assert strict.measure(samples[:1]) == [Measured({"text_area": 0.0, "text_frame": 0})]
