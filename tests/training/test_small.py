"""The pixel VAE, the small UNet and the tokenizer."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from training.arcface import small_arcface  # noqa: E402
from training.components import build, frames_of, latents_of, posterior_of  # noqa: E402
from training.config import fit_config  # noqa: E402
from training.small import PixelVAE, small_tokenizer, small_unet  # noqa: E402


def test_the_pixel_vae_loses_nothing() -> None:
    vae = PixelVAE(patch=4)
    video = torch.rand(2, 3, 3, 16, 16) * 2 - 1
    posteriors = torch.stack([posterior_of(vae, clip) for clip in video])
    latents = latents_of(vae, posteriors, torch.randn(2, 48, 3, 4, 4))
    assert latents.shape == (2, 48, 3, 4, 4)
    torch.testing.assert_close(frames_of(vae, latents[0].transpose(0, 1)), video[0])
    torch.testing.assert_close(latents.square().sum(), video.square().sum())  # orthonormal: noise stays as it is
    assert 2 ** (len(vae.config.block_out_channels) - 1) == 4
    with pytest.raises(ValueError, match="patch is 3: expected a power of 2"):
        PixelVAE(patch=3)


def test_fewer_latents_keep_brightness_before_colour_and_coarse_before_fine() -> None:
    vae = PixelVAE(patch=4, latents=3)
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    grey = torch.stack([torch.cos(math.pi * (2 * x + 1) / 8), torch.cos(math.pi * (2 * y + 1) / 8), torch.ones(4, 4)])
    kept = grey[:, None].expand(-1, 3, -1, -1)
    torch.testing.assert_close(vae.decode(vae.encode(kept)).sample, kept)
    red = torch.tensor([1.0, 0.0, -1.0])[None, :, None, None].expand(1, 3, 4, 4)
    finer = torch.cos(math.pi * 2 * (2 * x + 1) / 8).expand(1, 3, 4, 4)
    for lost in (red, finer):
        assert vae.decode(vae.encode(lost)).sample.abs().max() < 1e-6
    assert vae.config.block_out_channels == [3, 3, 3]
    torch.testing.assert_close(vae.basis @ vae.basis.T, torch.eye(3))


def test_a_scale_makes_latents_louder_and_is_taken_off_again() -> None:
    config = fit_config("embedded", ["patch=4", "latents=12", "latent_scale=0.5"])
    vae = build(config, small_arcface(), 2, small_tokenizer(["left"])).vae
    clip = torch.rand(2, 3, 16, 16) * 2 - 1
    latents = latents_of(vae, posterior_of(vae, clip)[None], torch.randn(1, 12, 2, 4, 4))[0].transpose(0, 1)
    torch.testing.assert_close(latents, vae.encode(clip) / 2)
    torch.testing.assert_close(frames_of(vae, latents), vae.decode(vae.encode(clip)).sample)


def test_the_tokenizer_knows_words_and_pads() -> None:
    tokenizer = small_tokenizer(["Moves left, slowly"])
    known = tokenizer("moves LEFT quickly", padding="max_length", max_length=8).input_ids
    words = tokenizer.convert_ids_to_tokens(known)
    assert words == ["<s>", "moves", "left", "<unk>", "</s>", "<pad>", "<pad>", "<pad>"]


def test_the_small_unet_tells_its_frames_apart() -> None:
    """Else nothing that differs from frame to frame, and so neither action nor intensity, is learned for long."""
    torch.manual_seed(0)
    unet = small_unet(fit_config("embedded"), frames=8)
    noise = torch.randn(2, 12, 1, 16, 16).expand(-1, -1, 8, -1, -1)  # every frame the same
    with torch.no_grad():
        out = unet(noise, torch.tensor([999, 999]), encoder_hidden_states=torch.zeros(16, 4, 32)).sample
    share = out.var(dim=2).mean() / out.var()
    assert share > 0.01
