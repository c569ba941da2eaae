"""Tiny random models in the published layouts through the baselines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("open_clip")

from stages.detection import Detection  # noqa: E402
from tests.training.evaluate.made import picture  # noqa: E402
from training.evaluate import baselines  # noqa: E402
from training.evaluate.baselines import Baseline, Settings, make_videos, merge_lora, read_adapter, said  # noqa: E402
from training.evaluate.commands import main  # noqa: E402
from training.evaluate.videos import read_folder, read_video  # noqa: E402
from training.requests import request  # noqa: E402

WIDTH, TEXT, VISION, FACE, TOKENS = 32, 16, 24, 512, 4


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion 1.5's folder, AnimateDiff's motion adapter and IP-Adapter's image encoder, very small."""
    from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("base")
    UNet2DConditionModel(
        block_out_channels=(WIDTH, WIDTH),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        sample_size=8,
        norm_num_groups=8,
        cross_attention_dim=TEXT,
        attention_head_dim=8,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
    ).save_pretrained(folder / "vae")
    small = {"hidden_size": TEXT, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextConfig(**small, vocab_size=520, bos_token_id=518, eos_token_id=519, pad_token_id=519)
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    write_tokenizer(folder / "tokenizer")
    MotionAdapter(
        block_out_channels=(WIDTH, WIDTH),
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=8,
        motion_max_seq_length=32,
    ).save_pretrained(folder / "motion")
    small = {"hidden_size": VISION, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = CLIPVisionConfig(**small, image_size=32, patch_size=16, projection_dim=8)
    CLIPVisionModelWithProjection(vision).save_pretrained(folder / "encoder")
    return folder


def write_tokenizer(folder: Path) -> None:
    """CLIP's tokenizer with the 256 bytes, each alone and at a word's end, and no merges."""
    folder.mkdir()
    from open_clip.tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += [f"extra{i}" for i in range(518 - len(words))] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"model_max_length": 16, "tokenizer_class": "CLIPTokenizer"})
    )


def randn(*shape: int) -> Any:
    return torch.randn(shape) * 0.3


def cross_attention(unet_folder: Path) -> dict[str, Any]:
    """K and V of each cross-attention, numbered 1, 3, 5 ... (tencent-ailab/IP-Adapter, ip_adapter/ip_adapter.py)."""
    from diffusers import UNet2DConditionModel

    count = len(UNet2DConditionModel.from_pretrained(unet_folder).attn_processors)
    names = [f"{i}.to_{part}_ip.weight" for i in range(1, count, 2) for part in ("k", "v")]
    return {name: randn(WIDTH, TEXT) for name in names}


def resampler(prefix: str, width: int, heads: int) -> dict[str, Any]:
    """PerceiverAttention and FeedForward of ip_adapter/resampler.py, 4 layers, 64 channels a head."""
    made = {}
    for i in range(4):
        layer = f"{prefix}layers.{i}"
        for norm in ("norm1", "norm2"):
            made |= {f"{layer}.0.{norm}.weight": torch.ones(width), f"{layer}.0.{norm}.bias": torch.zeros(width)}
        made |= {
            f"{layer}.0.to_q.weight": randn(64 * heads, width),
            f"{layer}.0.to_kv.weight": randn(128 * heads, width),
        }
        made |= {f"{layer}.0.to_out.weight": randn(width, 64 * heads)}
        made |= {f"{layer}.1.0.weight": torch.ones(width), f"{layer}.1.0.bias": torch.zeros(width)}
        made |= {f"{layer}.1.1.weight": randn(4 * width, width), f"{layer}.1.3.weight": randn(width, 4 * width)}
    made |= {f"{prefix}proj_out.weight": randn(TEXT, width), f"{prefix}proj_out.bias": randn(TEXT)}
    return made | {f"{prefix}norm_out.weight": torch.ones(TEXT), f"{prefix}norm_out.bias": torch.zeros(TEXT)}


def plus_face() -> dict[str, Any]:
    """Resampler: 16 queries over the image encoder's penultimate layer."""
    made = {"latents": randn(1, 16, 64), "proj_in.weight": randn(64, VISION), "proj_in.bias": randn(64)}
    return made | resampler("", 64, 1)


def portrait() -> dict[str, Any]:
    """MLPProjModel of ip_adapter/ip_adapter_faceid.py; 16 tokens."""
    made = {"proj.0.weight": randn(2 * FACE, FACE), "proj.0.bias": randn(2 * FACE)}
    made |= {"proj.2.weight": randn(16 * TEXT, 2 * FACE), "proj.2.bias": randn(16 * TEXT)}
    return made | {"norm.weight": torch.ones(TEXT), "norm.bias": torch.zeros(TEXT)}


def plusv2() -> dict[str, Any]:
    """ProjPlusModel of the same file: identity tokens that look at the image encoder's."""
    made = {"proj.0.weight": randn(2 * FACE, FACE), "proj.0.bias": randn(2 * FACE)}
    made |= {"proj.2.weight": randn(TOKENS * TEXT, 2 * FACE), "proj.2.bias": randn(TOKENS * TEXT)}
    made |= {"norm.weight": torch.ones(TEXT), "norm.bias": torch.zeros(TEXT)}
    inner = "perceiver_resampler."
    made |= {f"{inner}proj_in.weight": randn(TEXT, VISION), f"{inner}proj_in.bias": randn(TEXT)}
    return made | resampler(inner, TEXT, 1)


def lora(unet_folder: Path) -> dict[str, Any]:
    """rank 2, on q, k, v and out of every attention, as in the .bin of FaceID Plus v2."""
    from diffusers import UNet2DConditionModel

    made = {}
    for i in range(len(UNet2DConditionModel.from_pretrained(unet_folder).attn_processors)):
        for part in ("q", "k", "v", "out"):
            inputs = TEXT if part in "kv" and i % 2 else WIDTH
            made[f"{i}.to_{part}_lora.down.weight"] = randn(2, inputs)
            made[f"{i}.to_{part}_lora.up.weight"] = randn(WIDTH, 2)
    return made


@pytest.fixture(scope="module")
def adapters(base: Path) -> dict[str, Path]:
    """Files as published: plus-face as safetensors, the FaceID ones as .bin, v2 with its LoRA."""
    from safetensors.torch import save_file

    torch.manual_seed(1)
    attention = cross_attention(base / "unet")
    flat = {f"image_proj.{name}": t for name, t in plus_face().items()}
    flat |= {f"ip_adapter.{name}": t for name, t in attention.items()}
    paths = {method: base / name for method, name in baselines.FILES.items()}
    save_file(flat, paths["plus-face"])
    torch.save({"image_proj": portrait(), "ip_adapter": attention}, paths["faceid-portrait"])
    torch.save({"image_proj": plusv2(), "ip_adapter": attention | lora(base / "unet")}, paths["faceid-plusv2"])
    return paths


class Face:
    """Stands in for insightface: one face in the middle, its identity from the picture's mean colour."""

    def detect(self, frame: np.ndarray) -> list[Detection]:
        if frame.max() == 0:
            return []
        return [Detection((16, 16, 48, 48), 0.9, (24, 24, 40, 24, 32, 32, 26, 40, 38, 40))]

    def embed(self, images: list[np.ndarray], landmarks: np.ndarray) -> np.ndarray:
        assert landmarks.shape == (1, 5, 2)
        vector = np.resize(images[0].mean(axis=(0, 1)), FACE).astype(np.float32)
        return (vector / np.linalg.norm(vector))[None]


def settings(base: Path, method: str, **more: Any) -> Settings:
    given = {"base": str(base), "motion_adapter": str(base / "motion"), "image_encoder": str(base / "encoder")}
    given |= {"ip_adapter": str(base / baselines.FILES.get(method, "none")), "steps": 2, "guidance": 2.0, "frames": 3}
    return Settings(**(given | {"method": method, "size": 16, "fps": 8, "detector": "dlib", "device": "cpu"} | more))


@pytest.mark.parametrize("method", list(baselines.FILES))
def test_each_adapter_loads_and_its_face_matters(
    base: Path, adapters: dict[str, Path], tmp_path: Path, method: str
) -> None:
    one, other = picture(tmp_path / "one.png", 1), picture(tmp_path / "other.png", 2)
    baseline = Baseline(settings(base, method), Face())
    asked = {"prompt": "a man", "action": "nods", "intensity": 20}
    first = baseline.make(request("x", image=one, **asked))
    assert (first.shape, first.dtype) == ((3, 16, 16, 3), np.uint8)
    assert np.array_equal(first, baseline.make(request("x", image=one, **asked)))
    assert not np.array_equal(first, baseline.make(request("x", image=other, **asked)))
    assert not np.array_equal(first, baseline.make(request("x", image=one, **asked | {"prompt": "a dog"})))


def test_the_lora_is_added_to_the_weights_it_belongs_to(base: Path, adapters: dict[str, Path]) -> None:
    from diffusers import UNet2DConditionModel

    plain = UNet2DConditionModel.from_pretrained(base / "unet")
    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    adapter = read_adapter(adapters["faceid-plusv2"])["ip_adapter"]
    left = merge_lora(unet, adapter)
    assert set(left) == {name for name in adapter if "_ip." in name}
    for number, name in enumerate(unet.attn_processors):
        stem = name.removesuffix(".processor")
        for part, own in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("out", "to_out.0")):
            before, after = (net.get_submodule(f"{stem}.{own}").weight for net in (plain, unet))
            added = adapter[f"{number}.to_{part}_lora.up.weight"] @ adapter[f"{number}.to_{part}_lora.down.weight"]
            torch.testing.assert_close(after - before, added, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match=r"LoRA does not fit the base model: 99.to_q_lora.down.weight is left over"):
        merge_lora(unet, {"99.to_q_lora.down.weight": randn(2, 2)})


def test_a_plan_is_made_resumed_and_read_by_score(
    base: Path,
    adapters: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import PIL.Image

    monkeypatch.setattr(baselines, "_detector", lambda settings: Face())
    one, empty = picture(tmp_path / "one.png", 1), tmp_path / "empty.png"
    PIL.Image.new("RGB", (64, 64)).save(empty)
    wanted = [request("x", image=path, prompt=p, intensity=20) for path in (one, empty) for p in ("a", "b")]
    out = tmp_path / "out"
    assert make_videos(wanted, settings(base, "plus-face"), out) == 1
    said_ = capsys.readouterr().err
    assert f"training.evaluate: {empty}: no faces found, exactly one is needed" in said_
    made = sorted(out.glob("*.mp4"))
    assert [path.stem for path in made] == sorted(r.name() for r in wanted[:2])
    assert read_video(made[0])[0].shape == (3, 16, 16, 3)
    times = [path.stat().st_mtime_ns for path in made]
    assert make_videos(wanted[:2], settings(base, "plus-face"), out) == 0
    assert [path.stat().st_mtime_ns for path in made] == times
    plan = tmp_path / "plan.jsonl"
    plan.write_text("".join(json.dumps({"image": str(one), "prompt": p, "intensity": 20}) + "\n" for p in "ab"))
    same = vars(settings(base, "plus-face"))
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in same.items() if name != "method"]
    assert main(["baseline", "plus-face", "--plan", str(plan), "--out", str(out), *flags]) == 0
    assert capsys.readouterr().out == f"2 of 2 videos in {out}\n"
    assert [path.stat().st_mtime_ns for path in made] == times
    items = read_folder(out)
    assert {(item.prompt, item.intensity, item.image) for item in items} == {("a", 20.0, one), ("b", 20.0, one)}
    with pytest.raises(ValueError, match=r"settings.json: these videos were made with other settings"):
        make_videos(wanted[:2], settings(base, "plus-face", steps=3), out)


def test_action_and_intensity_are_said() -> None:
    assert said(request("x", image="a.png", prompt="a man", action="nods", intensity=7.5)) == (
        "a man, nods, motion intensity 7.5 of 20"
    )
    assert said(request("x", image="a.png", prompt="a man", intensity=0)) == "a man, no motion"


def test_id_animator_gets_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    face = picture(tmp_path / "face.png")
    plan = tmp_path / "plan.jsonl"
    plan.write_text(json.dumps({"image": str(face), "prompt": "a man", "intensity": 20}) + "\n")
    assert main(["baseline", "id-animator", "--plan", str(plan), "--out", str(tmp_path / "ida")]) == 0
    assert "run ID-Animator on each line's image with its `said`" in capsys.readouterr().out
    line = json.loads((tmp_path / "ida" / "videos.jsonl").read_text())
    assert line["said"] == "a man, motion intensity 20 of 20"
    assert line["prompt"] == "a man"  # what CLIP-T compares with, for all methods the same
    assert main(["baseline", "plus-face", "--plan", str(plan), "--out", str(tmp_path / "p"), "--base", "nowhere"]) == 2
    said_ = capsys.readouterr().err
    assert "base=nowhere: no such path, and in no weights folder" in said_
    assert "ip_adapter=ip-adapter-plus-face_sd15.safetensors: no such path" in said_
