"""Loading from published layouts (tiny models of the same form)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import Tensor

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from training import framework as framework_module  # noqa: E402
from training.arcface import small_arcface  # noqa: E402
from training.batch import collate  # noqa: E402
from training.cache import Cache  # noqa: E402
from training.components import (  # noqa: E402
    build,
    missing,
    noise_schedule,
)
from training.config import FitConfig, fit_config  # noqa: E402
from training.data import ClipDataset, Manifest  # noqa: E402
from training.draws import Draw  # noqa: E402
from training.framework import Framework  # noqa: E402
from training.model import adapter_parameters, spatial_transformers  # noqa: E402
from training.small import small_tokenizer  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> FitConfig:
    """Tiny models in the layouts of Stable Diffusion, AnimateDiff and an IP-Adapter, on disk."""
    from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    folder = tmp_path_factory.mktemp("weights")
    base = folder / "sd"
    unet = UNet2DConditionModel(
        sample_size=2,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=2,
    )
    unet.save_pretrained(base / "unet")
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        latent_channels=4,
    ).save_pretrained(base / "vae")
    words = [
        "<|startoftext|>",
        "<|endoftext|>",
        *"abcdefghijklmnopqrstuvwxyz,",
        *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz,"),
    ]
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=77, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    CLIPTextModel(text).save_pretrained(base / "text_encoder")
    tokenizer = base / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    (tokenizer / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77})
    )
    motion = MotionAdapter(
        block_out_channels=(8, 16), motion_layers_per_block=1, motion_norm_num_groups=4, motion_num_attention_heads=2
    )
    torch.nn.init.normal_(motion.mid_block.motion_modules[0].proj_out.weight)
    motion.save_pretrained(folder / "motion")
    vision = CLIPVisionConfig(
        hidden_size=12, intermediate_size=12, projection_dim=12, num_hidden_layers=2, num_attention_heads=2,
        image_size=16, patch_size=8,
    )  # fmt: skip
    CLIPVisionModelWithProjection(vision).save_pretrained(folder / "vision")
    # Published files number the attentions of the UNet, self-attentions too, so cross-attentions have odd numbers:
    # down, up, middle. Each is filled with the number of its site.
    widths = [t.transformer_blocks[0].attn2.inner_dim for t in _sites(unet)]
    state = {}
    for i, width in enumerate(widths):
        for matrix in ("k", "v"):
            state[f"ip_adapter.{2 * i + 1}.to_{matrix}_ip.weight"] = torch.full((width, 16), float(i))
    save_file(state, folder / "ip_adapter.safetensors")
    return fit_config(
        "paper",
        [
            f"base={base}",
            f"motion_adapter={folder / 'motion'}",
            f"image_encoder={folder / 'vision'}",
            f"ip_adapter={folder / 'ip_adapter.safetensors'}",
            "arcface=train",
            "size=16",
            "precision=float32",
        ],
    )


def _sites(unet: torch.nn.Module) -> list[torch.nn.Module]:
    return [t for block in (*unet.down_blocks, *unet.up_blocks, unet.mid_block) for t in spatial_transformers(block)]


def test_published_layouts_load_and_train(published: FitConfig, run_folder: Path) -> None:
    components = build(published, small_arcface(), 4, None)
    motion = components.unet.mid_block.motion_modules[0].proj_out.weight
    assert motion.std() > 0.5  # the motion adapter's own weights
    framework = Framework(components, published)
    adapter = {id(p) for part in adapter_parameters(framework.unet).values() for p in part.values()}
    assert {id(p) for p in framework.trainable().values()} == adapter
    manifest = Manifest.read(run_folder, "train")
    dataset = ClipDataset(manifest, published)
    batch = collate([dataset[Draw(0, 0)], dataset[Draw(1, 1)]])
    noise = framework.noise(batch, torch.Generator().manual_seed(0))
    noise.t[:] = 20
    losses = framework.train()(batch, noise)
    losses.total.backward()
    assert losses.active == 1.0
    assert all(p.grad is not None for p in framework.trainable().values())


def test_the_cache_gives_the_same_bits_and_spares_vae_and_text_encoder(
    published: FitConfig, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    framework = Framework(build(published, small_arcface(), 4, None), published)
    manifest = Manifest.read(run_folder, "train")
    draws = [Draw(row, number) for number, row in enumerate((0, 1, 0, 1, 0, 1, 0, 1))]

    @torch.no_grad()
    def steps(cache: Cache | None) -> tuple[list[Tensor], list[Tensor], list[bool]]:
        dataset = ClipDataset(manifest, published, cache)
        found, losses, known = [], [], []
        for i in range(0, len(draws), 2):
            batch = collate([dataset[draw] for draw in draws[i : i + 2]])
            known += [entry.posterior is not None for entry in batch.entry]
            noise = framework.noise(batch, torch.Generator().manual_seed(i))
            found += [batch.video, framework.z0(batch, noise.eta), framework.encode_text(batch.caption)]
            losses.append(framework(batch, noise).total)
        return found, losses, known

    without, losses, _ = steps(None)
    filling, losses_filling, known = steps(framework.use(Cache(tmp_path)))
    assert not any(known[:2])
    assert any(known[2:])
    latents = list(tmp_path.glob("latents/*/*/*.npy"))
    assert len(latents) == 4  # two clips, plain and mirrored
    assert {path.name[:32] for path in latents} == {row["clip_id"] for row in manifest.rows[:2]}

    def unexpected(*_: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(framework_module, "posterior_of", unexpected)
    monkeypatch.setattr(Framework, "_embed", unexpected)
    cached, losses_cached, known = steps(framework.use(Cache(tmp_path)))
    assert all(known)
    for a, b, c in zip(without, filling, cached, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
        # Kernels choose by strides: the same values laid out otherwise give other losses in the last digits.
        assert a.stride() == b.stride() == c.stride()
    assert losses == losses_filling == losses_cached


def test_what_another_vae_made_is_not_read(published: FitConfig, tmp_path: Path) -> None:
    framework = Framework(build(published, small_arcface(), 4, None), published)
    before = framework.use(Cache(tmp_path))
    next(framework.vae.parameters()).data.add_(1e-3)
    after = framework.use(Cache(tmp_path))
    assert before.latents != after.latents
    assert before.text == after.text


def test_z0_is_drawn_from_the_posterior_by_the_steps_own_noise(published: FitConfig, run_folder: Path) -> None:
    framework = Framework(build(published, small_arcface(), 4, None), published)
    dataset = ClipDataset(Manifest.read(run_folder, "train"), published)
    batch = collate([dataset[Draw(0, 0)], dataset[Draw(1, 1)]])
    noise = framework.noise(batch, torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    z0 = framework.z0(batch, noise.eta)
    torch.manual_seed(2)
    assert torch.equal(framework.z0(batch, noise.eta), z0)  # no global random state takes part: a resumed run equals
    with torch.no_grad():
        q = framework.vae.encode(batch.video[1]).latent_dist
    wanted = (q.mean + q.std * noise.eta[1].transpose(0, 1)) * framework.vae.config.scaling_factor
    torch.testing.assert_close(z0[1].transpose(0, 1), wanted)
    assert (framework.z0(batch, torch.zeros_like(noise.eta)) - z0).abs().max() > 0


def test_an_ip_adapter_gives_k_and_v_their_start(published: FitConfig) -> None:
    unet = build(published, small_arcface(), 4, None).unet
    for i, transformer in enumerate(_sites(unet)):
        processor = transformer.transformer_blocks[0].attn2.processor
        assert processor.to_k_ip[0].weight.unique().tolist() == [float(i)]
        assert processor.to_v_ip[0].weight.unique().tolist() == [float(i)]


def test_a_published_base_makes_no_sense_of_the_other_ones_motion(published: FitConfig) -> None:
    mixed = published.model_copy(update={"base": "scratch", "ip_adapter": None})
    with pytest.raises(ValueError, match="motion_adapter must be scratch where base is"):
        build(mixed, small_arcface(), 4, small_tokenizer(["a"]))


def test_what_is_missing_is_named_with_its_place() -> None:
    lines = missing(fit_config("paper"))
    assert [line.split("=")[0] for line in lines] == ["base", "motion_adapter", "image_encoder", "arcface"]
    assert "non-commercial research only" in lines[3]
    assert missing(fit_config("embedded")) == []


def test_schedules() -> None:
    paper, embedded = noise_schedule(fit_config("paper")), noise_schedule(fit_config("embedded"))
    assert paper.betas[0].item() == pytest.approx(0.00085)
    assert paper.betas[500].item() == pytest.approx(0.00085 + 500 / 999 * (0.012 - 0.00085))  # linear, not scaled
    assert paper.config.steps_offset == 1
    assert paper.config.clip_sample is False
    assert paper.alphas_cumprod[-1].item() == pytest.approx(0.0016, abs=2e-4)
    assert embedded.alphas_cumprod[-1].item() < 1e-7
    embedded.set_timesteps(20)
    assert embedded.timesteps[0].item() == 999
