"""insightface with the real SCRFD detectors, and with a random recogniser against its own FaceAnalysis."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from benchmarks import upstream_layouts
from stages import weights
from stages.base import Measured, Sample
from stages.clip import Clip
from stages.face import STAGE
from stages.frames import Frames, FrameSpec
from stages.insightface_face import InsightFace, InsightFaceParams

pytest.importorskip("insightface")
onnxruntime = pytest.importorskip("onnxruntime")
DETECTORS = ("scrfd_500m_kps", "scrfd_2.5g_kps")
STILLS = ("art_0", "art_1", "art_2", "art_5", "art_7", "art_9")


def scaled(image: Image.Image, side: int = 512) -> np.ndarray:
    scale = side / min(image.size)
    size = round(image.width * scale), round(image.height * scale)
    return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))


def still(shared: Path, name: str) -> np.ndarray:
    return scaled(Image.open(shared / "stills" / name))


def video(path: Path, count: int) -> np.ndarray:
    """`count` frames spread over the middle 3.75 s, or over all of a shorter video."""
    with av.open(str(path)) as container:
        middle = container.duration / av.time_base / 2
        container.seek(max(0, int((middle - 1.875) * av.time_base)))
        inside = []
        for frame in container.decode(video=0):
            if frame.time > middle + 1.875:
                break
            if frame.time >= middle - 1.875:
                inside.append(frame)
        chosen = np.linspace(0, len(inside) - 1, count).round().astype(int)
        return np.stack([scaled(Image.fromarray(inside[i].to_ndarray(format="rgb24"))) for i in chosen])


def sample(images: np.ndarray) -> Sample:
    kind = "image" if len(images) == 1 else "video"
    frames = Frames(images, np.arange(len(images)) / 4, (images.shape[2], images.shape[1]), "pyav")
    return Sample(Clip("s", "a.mp4", kind, "1"), frames=frames)


def save_recogniser(path: Path, seed: int) -> None:
    """A random embedding network of the form that insightface takes for ArcFace: a batch of (3, 112, 112) to 512."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    values = {
        "kernel": rng.normal(size=(8, 3, 16, 16)) / 27,
        "matrix": rng.normal(size=(8 * 7 * 7, 512)) / 20,
        "offset": rng.normal(size=512) / 10,
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input.1", "kernel"], ["conv"], strides=[16, 16]),
            helper.make_node("Flatten", ["conv"], ["flat"]),
            helper.make_node("Gemm", ["flat", "matrix", "offset"], ["683"]),
        ],
        "recogniser",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, ["None", 3, 112, 112])],
        [helper.make_tensor_value_info("683", TensorProto.FLOAT, ["None", 512])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


@pytest.fixture(scope="module")
def files(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the recogniser; the detectors are the real ones."""
    folder = tmp_path_factory.mktemp("weights")
    save_recogniser(folder / "insightface" / "w600k_r50.onnx", seed=1)
    upstream_layouts.own(folder / "insightface" / "w600k_r50.onnx", folder)
    return folder


@pytest.fixture(autouse=True)
def at(files: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.VARIABLE, f"{files}:{shared / 'weights'}")
    monkeypatch.setenv("HOME", str(files / "nowhere"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def engine(**params: object) -> InsightFace:
    built = InsightFace(InsightFaceParams.model_validate({"detector": "scrfd_500m_kps"} | params), FrameSpec())
    built.setup("cpu")
    return built


def columns(built: InsightFace, *images: np.ndarray) -> list[dict]:
    measured = built.measure([sample(i) for i in images])
    for m in measured:
        assert isinstance(m, Measured)
        assert list(m.columns) == [field.name for field in STAGE.fields]
    return [m.columns for m in measured if isinstance(m, Measured)]


@pytest.mark.parametrize("detector", DETECTORS)
def test_equals_face_analysis(detector: str, shared: Path, files: Path, tmp_path: Path) -> None:
    from insightface.app import FaceAnalysis

    (tmp_path / "detector.onnx").symlink_to(shared / "weights" / "insightface" / f"{detector}.onnx")
    (tmp_path / "recogniser.onnx").symlink_to(files / "insightface" / "w600k_r50.onnx")
    app = FaceAnalysis(str(tmp_path), providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=-1, det_thresh=0.5, det_size=(640, 640))
    ours = engine(detector=detector)
    compared = 0
    for name in ("group.jpg", "art_0.png"):
        image = still(shared, name)
        expected = app.get(np.ascontiguousarray(image[..., ::-1]))
        found = ours.detect(image)
        assert len(found) == len(expected)
        vectors = ours.embed([image] * len(found), np.array([f.landmarks for f in found]).reshape(-1, 5, 2))
        for face, vector, theirs in zip(found, vectors, expected, strict=True):
            np.testing.assert_allclose(face.box, theirs.bbox, atol=1e-3)
            np.testing.assert_allclose(np.array(face.landmarks).reshape(5, 2), theirs.kps, atol=1e-3)
            assert face.score == pytest.approx(theirs.det_score, abs=1e-5)
            np.testing.assert_allclose(vector, theirs.normed_embedding, atol=1e-5)
            compared += 1
    assert compared == 7


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_group_has_six_faces_and_each_portrait_one(detector: str, shared: Path) -> None:
    ours = engine(detector=detector, recogniser=None)
    group, *art = columns(ours, *(still(shared, n)[None] for n in ("group.jpg", *(f"{s}.png" for s in STILLS))))
    assert group["face_count"] == 6
    assert group["face_fraction"] == 0
    for found in art:
        assert (found["face_count"], found["face_fraction"]) == (1, 1)
        assert found["face_score"] > 0.7
        assert found["face_embedding"] is found["face_similarity"] is None


def check_clips(shared: Path, detector: str, count: int) -> None:
    ours = engine(detector=detector, recogniser=None)
    clips = sorted((shared / "clips").glob("*.mp4"))
    assert len(clips) == 13
    for clip in clips:
        (found,) = columns(ours, video(clip, count))
        assert found["face_count"] == 1, clip.name
        assert found["face_fraction"] >= 0.5, clip.name
        assert found["face_score"] > 0.5, clip.name


def test_each_real_clip_has_one_face(shared: Path) -> None:
    check_clips(shared, "scrfd_500m_kps", count=3)


@pytest.mark.slow
@pytest.mark.parametrize("detector", DETECTORS)
def test_each_real_clip_has_one_face_on_sixteen_frames(detector: str, shared: Path) -> None:
    check_clips(shared, detector, count=16)


def test_the_identity_is_the_best_frames_and_tells_people_apart(shared: Path) -> None:
    same = np.repeat(still(shared, "art_1.png")[None], 3, axis=0)
    other = still(shared, "art_9.png")
    side = min(other.shape[:2])
    mixed = np.stack([same[0], other[:side, :side], same[2]])
    ours = engine()
    one, two, none = columns(ours, same, mixed, np.zeros((3, 512, 512, 3), np.uint8))
    assert len(one["face_embedding"]) == 512
    assert np.linalg.norm(one["face_embedding"]) == pytest.approx(1, abs=1e-5)
    assert one["face_similarity"] == pytest.approx(1, abs=1e-5)
    best = max([same[0], mixed[1]], key=lambda image: ours.detect(image)[0].score)
    (expected,) = ours.embed([best], np.array(ours.detect(best)[0].landmarks).reshape(1, 5, 2))
    np.testing.assert_allclose(two["face_embedding"], expected, atol=1e-5)
    assert two["face_similarity"] < 0.99
    assert none["face_count"] == 0
    assert none["face_score"] is none["face_embedding"] is none["face_similarity"] is None
    for batched, image in ((one, same), (two, mixed)):
        (alone,) = columns(ours, image)
        assert alone == batched


def change_one_weight(source: Path, folder: Path) -> None:
    """Puts the model into a weights folder of its own, the first weight of its first convolution changed."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(source))
    kernel = next(node.input[1] for node in model.graph.node if node.op_type == "Conv")
    stored = next(value for value in model.graph.initializer if value.name == kernel)
    values = numpy_helper.to_array(stored).copy()
    values.flat[0] += 1
    stored.CopyFrom(numpy_helper.from_array(values, kernel))
    path = folder / "insightface" / source.name
    path.parent.mkdir(parents=True)
    onnx.save(model, str(path))
    upstream_layouts.own(path, folder)


def test_one_changed_weight_changes_scores_or_embedding_and_the_version(
    shared: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = still(shared, "art_1.png")[None]
    ours = engine()
    (before,), version = columns(ours, image), ours.version()

    change_one_weight(files / "insightface" / "w600k_r50.onnx", tmp_path / "recogniser")
    monkeypatch.setenv(weights.VARIABLE, f"{tmp_path / 'recogniser'}:{shared / 'weights'}")
    (after,) = columns(engine(), image)
    assert np.abs(np.array(after["face_embedding"]) - before["face_embedding"]).max() > 1e-3
    assert after["frame_boxes"] == before["frame_boxes"]
    assert engine().version() != version

    change_one_weight(shared / "weights" / "insightface" / "scrfd_500m_kps.onnx", tmp_path / "detector")
    monkeypatch.setenv(weights.VARIABLE, f"{tmp_path / 'detector'}:{files}")
    (after,) = columns(engine(), image)
    assert abs((after["face_score"] or 0) - before["face_score"]) > 1e-3
    assert engine().version() != version


def test_missing_weights_are_named_with_their_licence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match=r"det_10g: missing \(non-commercial research only.*\n.*w600k_r50: missing"):
        engine(detector="det_10g")


def test_a_gpu_that_onnxruntime_cannot_use_is_told(caplog: pytest.LogCaptureFixture) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime has CUDA here: nothing is to be told")
    built = InsightFace(InsightFaceParams(detector="scrfd_500m_kps", recogniser=None), FrameSpec())
    built.setup("cuda:0")
    assert caplog.messages == ["faces run on the CPU: onnxruntime finds no CUDA; onnxruntime-gpu in its place does"]


def test_params_are_checked() -> None:
    assert InsightFace(InsightFaceParams(recogniser=None), FrameSpec()).weights() == ("det_10g",)
    with pytest.raises(ValueError, match="multiple of 32"):
        InsightFaceParams(size=600)
