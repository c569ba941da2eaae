"""The formula of each metric on hand-computed cases, and against the reference's own implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")

from stages import weights  # noqa: E402
from training.metrics import face_similarity  # noqa: E402
from training.metrics.base import Video  # noqa: E402
from training.metrics.clip_scores import ClipI, ClipT, mean_cosine  # noqa: E402
from training.metrics.control import Control, agreement, frame_grid  # noqa: E402
from training.metrics.dynamic_degree import DynamicDegree, decide, frame_step, mean_of_largest, pad, threshold  # noqa: E402
from training.metrics.face_similarity import cut, similarity  # noqa: E402
from training.metrics.smoothness import smoothness  # noqa: E402
from training.metrics.table import METRICS, TABLE_1  # noqa: E402


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def video(frames: np.ndarray, **more: Any) -> Video:
    given = {"fps": 8.0, "reference": frames[0], "prompt": "a man in a red coat", "intensity": 20.0} | more
    return Video(frames, **given)


def half_way(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return ((first.astype(int) + second) // 2).astype(np.uint8)


def test_a_video_that_interpolates_perfectly_is_wholly_smooth() -> None:
    still = np.repeat(noise(0, 1, 8, 8, 3), 16, axis=0)
    assert smoothness(still, half_way).value == 1.0
    even = np.arange(16, dtype=np.uint8)[:, None, None, None] * np.full((1, 4, 4, 3), 2, np.uint8)
    assert smoothness(even, half_way).value == 1.0


def test_smoothness_is_one_less_the_share_of_the_error_of_the_odd_frames() -> None:
    frames = np.zeros((6, 2, 2, 3), np.uint8)
    frames[1] = 51  # 51 off
    frames[3, 0] = 102  # half of the pixels 102 off: 51
    frames[5] = 255  # no right neighbour: does not count
    found = smoothness(frames, half_way)
    assert found.details["mae"] == [51.0, 51.0]
    assert found.value == pytest.approx((255 - 51) / 255)
    dark = smoothness(np.array([[[[200]]], [[[10]]], [[[0]]]], np.uint8), half_way)
    assert dark.value == pytest.approx((255 - 90) / 255)  # not wrapped around
    with pytest.raises(ValueError, match="has 2 frames, three are needed"):
        smoothness(frames[:2], half_way)


def test_dynamic_degree_counts_pairs_over_the_threshold() -> None:
    assert threshold(512, 768) == 12.0
    assert threshold(256, 128) == 3.0
    limit = threshold(512, 512)
    assert decide([0.0] * 15, limit).value == 0.0  # a still video
    assert decide([12.0] * 15, limit).value == 0.0  # exceeds, not reaches
    assert decide([12.1] * 4 + [0.0] * 11, limit).value == 1.0  # 16 frames: 4 pairs
    assert decide([12.1] * 3 + [0.0] * 12, limit).value == 0.0
    assert decide([12.1] * 2 + [0.0] * 5, limit).value == 1.0  # 8 frames: 2 pairs
    assert decide([12.1], limit).details == {"largest": [12.1], "threshold": 12.0, "moving": 1, "needed": 1}


def test_the_largest_five_percent_are_averaged() -> None:
    magnitudes = np.zeros((10, 20), np.float32)
    magnitudes[3, :5], magnitudes[7, :5] = 10.0, 20.0  # 5 % of 200 pixels are 10
    assert mean_of_largest(magnitudes) == 15.0
    magnitudes[0, 0] = 40.0
    assert mean_of_largest(magnitudes) == 18.0  # takes the place of a 10
    assert [frame_step(fps) for fps in (4, 8, 11, 12.5, 16, 24, 30)] == [1, 1, 1, 2, 2, 3, 4]


def test_padding_repeats_the_border_on_both_sides() -> None:
    frames = noise(1, 1, 133, 150, 3)
    padded, (top, left) = pad(frames)
    assert padded.shape == (1, 136, 152, 3)
    assert (top, left) == (1, 1)
    assert np.array_equal(padded[:, 1:134, 1:151], frames)
    assert np.array_equal(padded[0, 0, 1:151], frames[0, 0])


def test_dynamic_degree_uses_torchvisions_raft_with_twenty_updates(at_weights: Path) -> None:
    from torchvision.models.optical_flow import raft_large

    frames = np.repeat(np.repeat(noise(2, 3, 16, 16, 3), 8, axis=1), 8, axis=2)
    metric = DynamicDegree()
    metric.setup("cpu")
    found = metric.measure(video(frames, fps=4.0))
    reference = raft_large(weights=None).eval()
    reference.load_state_dict(torch.load(at_weights / weights.WEIGHTS["raft_large_things"].file, weights_only=True))
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        flow = reference(images[:-1], images[1:], num_flow_updates=20)[-1]
    expected = [mean_of_largest(m) for m in flow.norm(dim=1).numpy()]
    np.testing.assert_allclose(found.details["largest"], expected, rtol=1e-3)
    assert found.details["threshold"] == 3.0


def test_clip_scores_equal_transformers_clip(at_weights: Path) -> None:
    from PIL import Image
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    state = weights.load_state_dict(at_weights / weights.WEIGHTS["clip-vit-l-14"].file)
    tower = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 1, "hidden_act": "quick_gelu"}
    config = CLIPConfig(
        text_config=tower | {"num_hidden_layers": 1, "vocab_size": 49408, "eos_token_id": 49407},
        vision_config=tower | {"num_hidden_layers": 2, "patch_size": 32, "image_size": 224},
        projection_dim=48,
    )
    reference = CLIPModel(config).eval()
    missing = reference.load_state_dict(transformers_state(state), strict=False)
    assert not missing.unexpected_keys
    assert all("position_ids" in name for name in missing.missing_keys)

    frames = np.repeat(np.repeat(noise(3, 3, 8, 10, 3), 16, axis=1), 16, axis=2)
    portrait = np.repeat(np.repeat(noise(4, 12, 8, 3), 16, axis=0), 16, axis=1)
    processor = CLIPImageProcessor()
    pixels = processor([Image.fromarray(f) for f in (*frames, portrait)], return_tensors="pt").pixel_values
    import open_clip

    tokens = open_clip.SimpleTokenizer()(["a man in a red coat"])
    with torch.no_grad():
        out = reference(input_ids=tokens, pixel_values=pixels)
    pictures, text = out.image_embeds.numpy(), out.text_embeds.numpy()[0]
    one, other = ClipI(), ClipT()
    one.setup("cpu")
    other.setup("cpu")
    asked = video(frames, reference=portrait)
    np.testing.assert_allclose(one.measure(asked).details["cosines"], pictures[:3] @ pictures[3], atol=2e-3)
    np.testing.assert_allclose(other.measure(asked).details["cosines"], pictures[:3] @ text, atol=2e-3)
    assert one.measure(video(frames[:1], reference=frames[0])).value == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ValueError, match="has no prompt to compare with"):
        other.measure(video(frames, prompt=" "))


def transformers_state(state: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's names as transformers' convert_clip_original_pytorch_to_hf.py maps them."""
    made: dict[str, Any] = {"logit_scale": state["logit_scale"]}
    made["text_projection.weight"] = state["text_projection"].T
    made["visual_projection.weight"] = state["visual.proj"].T
    made["text_model.embeddings.token_embedding.weight"] = state["token_embedding.weight"]
    made["text_model.embeddings.position_embedding.weight"] = state["positional_embedding"]
    made["vision_model.embeddings.class_embedding"] = state["visual.class_embedding"]
    made["vision_model.embeddings.position_embedding.weight"] = state["visual.positional_embedding"]
    made["vision_model.embeddings.patch_embedding.weight"] = state["visual.conv1.weight"]
    renamed = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for name, tensor in state.items():
        side = "vision_model" if name.startswith("visual.") else "text_model"
        short = name.removeprefix("visual.")
        for norm, other in (
            ("ln_final", "final_layer_norm"),
            ("ln_pre", "pre_layrnorm"),
            ("ln_post", "post_layernorm"),
        ):
            if short.startswith(norm):
                made[f"{side}.{other}.{short.split('.')[1]}"] = tensor
        if not short.startswith("transformer.resblocks."):
            continue
        layer, rest = short.removeprefix("transformer.resblocks.").split(".", 1)
        stem = f"{side}.encoder.layers.{layer}"
        if "in_proj" in rest:
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                made[f"{stem}.self_attn.{part}_proj.{rest.rsplit('_', 1)[1]}"] = third
        else:
            rest = rest.replace("attn.out_proj", "self_attn.out_proj")
            for old, new in renamed.items():
                rest = rest.replace(old, new)
            made[f"{stem}.{rest}"] = tensor
    return made


def test_mean_cosine_is_the_mean_over_the_frames() -> None:
    found = mean_cosine(np.array([[1.0, 0.0], [0.6, 0.8], [0.0, -1.0]]), np.array([[0.0, 1.0]]))
    assert found.details["cosines"] == [0.0, 0.8, -1.0]
    assert found.value == pytest.approx(-0.2 / 3)  # raw: negative ones count as they are


def test_a_missed_face_and_a_contrary_one_count_zero() -> None:
    vectors = {0: [1.0, 0.0], 1: [0.6, 0.8], 2: [-1.0, 0.0]}
    faces = {i: np.full((2, 2, 3), i, np.uint8) for i in vectors}

    def embed(batch: np.ndarray) -> np.ndarray:
        return np.array([vectors[int(face[0, 0, 0])] for face in batch])

    found = similarity([faces[1], None, faces[2], faces[0]], faces[0], embed)
    assert found.details == {"cosines": [0.6, None, -1.0, 1.0], "missed": 1}
    assert found.value == pytest.approx((0.6 + 0 + 0 + 1.0) / 4)
    assert similarity([None, None], faces[0], embed).value == 0.0


def test_the_face_is_cut_at_whole_pixels_inside_the_picture() -> None:
    frame = np.zeros((300, 400, 3), np.uint8)
    frame[:160, :160] = 200
    assert cut(frame, np.array([-20.5, -3.0, 160.9, 160.2])).min() == 200
    assert cut(frame, np.array([10.0, 10, 500, 500])).shape[0] == face_similarity.SIDE


def test_a_box_that_holds_no_pixel_is_no_face() -> None:
    class Detector:
        boxes = np.array([[60, 60, 2, 2, 0.9], [70, 5, 90, 60, 0.9], [5, 5, 25, 25, 0.9]], np.float32)

        def detect(self, frame: np.ndarray) -> np.ndarray:
            return self.boxes

    metric, frame = face_similarity.FaceSimilarity(), noise(8, 64, 64, 3)
    metric.detector = Detector()
    assert np.array_equal(metric.face(frame), cut(frame, np.array([5, 5, 25, 25])))
    Detector.boxes = Detector.boxes[:2]
    assert metric.face(frame) is None


def test_faces_are_those_of_facenet_pytorch(at_weights: Path) -> None:
    """Against the library itself, its MTCNN weights and a picture with real faces."""
    library = pytest.importorskip("facenet_pytorch", reason="installed by `make`, without its dependencies")
    from PIL import Image
    from skimage.data import astronaut

    from training.metrics.facenet import load_facenet
    from training.metrics.mtcnn import Mtcnn

    reference = library.MTCNN(image_size=160, margin=0, keep_all=True)
    networks = [getattr(reference, name).state_dict() for name in ("pnet", "rnet", "onet")]
    picture = np.concatenate([astronaut(), astronaut()[:, ::-1][100:]], axis=0)[:, :460]
    boxes, scores = reference.detect(Image.fromarray(picture))
    found = Mtcnn(*networks).detect(picture)
    found = found[np.argsort(-np.prod(found[:, 2:4] - found[:, :2], axis=1))]  # the library's order
    assert len(boxes) >= 2
    np.testing.assert_allclose(found[:, :4], np.array(boxes, float), atol=1e-2)
    np.testing.assert_allclose(found[:, 4], np.array(scores, float), atol=1e-4)

    state = torch.load(at_weights / weights.WEIGHTS["facenet-vggface2"].file, weights_only=True)
    model = library.InceptionResnetV1().eval()
    model.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith("logits")})
    faces = reference.extract(Image.fromarray(picture), boxes, None)
    metric = face_similarity.FaceSimilarity()
    metric.facenet, metric.device = load_facenet(state), "cpu"
    with torch.no_grad():
        expected = model(faces).numpy()
    mine = np.stack([cut(picture, box) for box in found[:, :4]])
    np.testing.assert_allclose(metric.embed(mine), expected, atol=1e-4)


def test_no_face_is_none(at_weights: Path) -> None:
    metric = face_similarity.FaceSimilarity()
    metric.setup("cpu")
    metric.face = lambda frame: None  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="no face is found on the reference picture"):
        metric.measure(video(noise(5, 2, 64, 64, 3)))


def test_control_measures_m_at_four_frames_a_second() -> None:
    import cv2

    picture = cv2.GaussianBlur(noise(7, 200, 400, 3), (0, 0), 3)
    moving = np.stack([picture[:128, 3 * i : 3 * i + 128] for i in range(9)])  # 3 px a frame
    metric = Control()
    metric.setup("cpu")
    slow = metric.measure(video(moving, fps=4.0, grid_size=128))
    fast = metric.measure(video(moving, fps=8.0, grid_size=128))
    large = metric.measure(video(moving, fps=4.0, grid_size=512))
    assert slow.value == pytest.approx(3, rel=0.15)
    assert fast.value == pytest.approx(6, rel=0.15)  # every second frame
    assert large.value == pytest.approx(12, rel=0.15)
    assert slow.details == {"asked": 20.0}
    with pytest.raises(ValueError, match="has no intensity asked for"):
        metric.measure(video(moving, intensity=None))
    wide = frame_grid(np.tile(np.arange(200, dtype=np.uint8)[None, None, :, None], (2, 100, 1, 3)), 4.0, 100)
    assert (wide[0, 0, 0, 0], wide[0, 0, -1, 0]) == (50, 149)  # the central square


def test_agreement_of_asked_and_measured() -> None:
    asked, measured = [0, 0, 10, 10, 20, 20], [1, 3, 6, 8, 25, 12]
    found = agreement(asked, measured)
    ranks = np.corrcoef([1.5, 1.5, 3.5, 3.5, 5.5, 5.5], [1, 2, 3, 4, 6, 5])[0, 1]
    assert found["spearman"] == pytest.approx(ranks)
    assert found["mean_error"] == pytest.approx((1 + 3 - 4 - 2 + 5 - 8) / 6)
    assert found["mean_absolute_error"] == pytest.approx((1 + 3 + 4 + 2 + 5 + 8) / 6)
    assert found["by_asked"]["10"] == {"videos": 2, "mean": 7.0, "std": 1.0}
    low, high = found["spearman_interval"]
    assert low < ranks < high < 1
    assert agreement([20, 20], [3, 5])["spearman"] is None


def test_every_metric_says_what_it_does() -> None:
    assert [len(row) for row in TABLE_1.values()] == [6] * 5
    assert TABLE_1["MotionCharacter"] == (0.869, 0.998, 0.449, 0.633, 0.227, 0.609)
    for name, made in METRICS.items():
        metric = made()
        assert metric.name == name
        assert len(metric.definition) > 100
        assert all(file in weights.WEIGHTS for file in metric.weights)
    assert "non-commercial" in weights.WEIGHTS["amt-s"].licence
    assert "non-commercial" in weights.WEIGHTS["facenet-vggface2"].licence
