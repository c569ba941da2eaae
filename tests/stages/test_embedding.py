"""open_clip's embedding against open_clip's own loader and preprocessing, on the same TorchScript file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import upstream_layouts
from stages import weights
from stages.base import Measured, Params, Sample
from stages.clip import Clip
from stages.embedding import STAGE, NoEmbedding, OpenClip, OpenClipParams, face_crop
from stages.frames import Frames, FrameSpec

FACES = {"face_frames": [0, 2], "frame_boxes": [[1.0, 2.0, 3.0, 4.0], [40.0, 30.0, 80.0, 90.0]]}


def sample(seed: int, h: int = 128, w: int = 160, columns: dict | None = None) -> Sample:
    rng = np.random.default_rng(seed)
    images = np.repeat(np.repeat(rng.integers(0, 256, (3, h // 16, w // 16, 3), np.uint8), 16, axis=1), 16, axis=2)
    frames = Frames(images, np.arange(3) / 4, (w, h), "pyav")
    return Sample(Clip("s", f"{seed}.mp4", "video", "1"), columns or FACES, frames)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("open_clip")
    folder = tmp_path_factory.mktemp("weights")
    path = upstream_layouts.write_script(upstream_layouts.tiny_clip_vit(), folder / "clip" / "ViT-L-14.pt", seed=1)
    return upstream_layouts.own(path, folder)


@pytest.fixture
def at(vit: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(weights.VARIABLE, str(vit.parent.parent))
    return vit


def measure(samples: list[Sample], precision: str = "auto") -> list[Measured]:
    engine = OpenClip(OpenClipParams.model_validate({"precision": precision}), FrameSpec())
    engine.setup("cpu")
    found = engine.measure(samples)
    assert all(isinstance(m, Measured) for m in found)
    return found


def vectors(measured: list[Measured]) -> np.ndarray:
    return np.array([[m.columns["image_embedding"], m.columns["frame_embedding"]] for m in measured])


def test_equals_open_clip_and_batched_equals_one_by_one(at: Path) -> None:
    import open_clip
    import torch
    from PIL import Image

    model = open_clip.load_openai_model(str(at), precision="fp32", device="cpu")
    preprocess = open_clip.image_transform(model.visual.image_size, is_train=False)
    samples = [sample(1), sample(2, 160, 128), sample(3)]
    expected = []
    for s in samples:
        face = s.images()[2][15:105, 15:105]  # the box's centre 60, 60, its longer side 60, and half of it around
        for picture in (face, s.images()[1]):
            with torch.no_grad():
                feature = model.encode_image(preprocess(Image.fromarray(picture))[None])[0]
            expected.append((feature / feature.norm()).numpy())
    found = vectors(measure(samples))
    assert found.shape == (3, 2, 48)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(found.reshape(6, 48), expected, atol=1e-5)
    np.testing.assert_allclose([vectors(measure([s]))[0] for s in samples], found, atol=1e-5)
    cosines = found.reshape(6, 48) @ found.reshape(6, 48).T
    assert cosines[~np.eye(6, dtype=bool)].max() < 0.9999, "equal embeddings would compare nothing"


def test_half_precision_keeps_the_direction(at: Path) -> None:
    half, whole = vectors(measure([sample(1)], "float16")), vectors(measure([sample(1)]))
    assert not np.array_equal(half, whole)
    assert (half * whole).sum(axis=-1).min() > 0.999


def test_a_clip_without_a_face_has_a_frame_embedding_alone(at: Path) -> None:
    none, some = measure([sample(1, columns={"face_frames": [], "frame_boxes": []}), sample(2)])
    assert none.columns["image_embedding"] is None
    assert len(none.columns["frame_embedding"]) == 48
    np.testing.assert_allclose(vectors([some]), vectors(measure([sample(2)])), atol=1e-5)


def test_one_changed_weight_changes_the_embedding(at: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    before = vectors(measure([sample(1)]))
    state = weights.load_state_dict(at)
    state["visual.proj"][0, 0] += 1
    (tmp_path / "clip").mkdir()
    torch.save(state, tmp_path / "clip" / "ViT-L-14.pt")
    upstream_layouts.own(tmp_path / "clip" / "ViT-L-14.pt", tmp_path)
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    assert np.abs(vectors(measure([sample(1)])) - before).max() > 1e-4


@pytest.mark.parametrize(
    ("box", "shape"),
    [
        ([0.0, 0.0, 40.0, 40.0], (50, 50, 3)),  # clipped at the corner: 20 + 30 pixels of 60 remain
        ([150.0, 100.0, 170.0, 140.0], (38, 30, 3)),  # beyond the right and lower edge
        ([-80.0, -80.0, -60.0, -60.0], (1, 1, 3)),  # outside altogether: still a picture
    ],
)
def test_the_face_crop_stays_inside_the_frame(box: list[float], shape: tuple[int, ...]) -> None:
    crop = face_crop(sample(1, columns={"face_frames": [1], "frame_boxes": [box]}))
    assert crop is not None
    assert crop.shape == shape


def test_the_engine_none_gives_null() -> None:
    assert STAGE.engines["none"] is NoEmbedding
    (measured,) = NoEmbedding(Params(), FrameSpec()).measure([sample(1)])
    assert isinstance(measured, Measured)
    assert measured.columns == {field.name: None for field in STAGE.fields}


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    engine = OpenClip(OpenClipParams(model="ViT-B-32"), FrameSpec())
    assert engine.weights() == ("clip-vit-b-32",)
    with pytest.raises(ValueError, match="clip-vit-b-32: missing"):
        engine.setup("cpu")


@pytest.mark.slow
def test_a_file_of_the_published_layout_loads_strictly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert upstream_layouts.parameters(upstream_layouts.clip_vit()) == 427_616_513
    layout = upstream_layouts.clip_vit(width=768, layers=12, patch=32, embed=512, text=512)
    assert upstream_layouts.parameters(layout) == 151_277_313
    upstream_layouts.own(upstream_layouts.write(layout, tmp_path / "clip" / "ViT-B-32.pt"), tmp_path)
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    engine = OpenClip(OpenClipParams(model="ViT-B-32"), FrameSpec())
    engine.setup("cpu")
    visual = {f"visual.{name}": tuple(value.shape) for name, value in engine.visual.state_dict().items()}
    assert visual == {name: shape for name, shape in layout.items() if name.startswith("visual.")}
