"""Presets and overrides."""

from __future__ import annotations

import subprocess
import sys

import pytest

from training.config import fit_config


def test_the_paper_preset_has_the_papers_values() -> None:
    config = fit_config("paper")
    assert (config.size, config.steps, config.batch, config.lr) == (512, 12_000, 2, 1e-5)
    assert (config.drop_text, config.drop_image, config.drop_clip, config.flip) == (0.05, 0.05, 0.5, 0.5)
    assert (config.guidance, config.sample_steps) == (8.0, 30)
    assert (config.beta_schedule, config.beta_start, config.beta_end) == ("linear", 0.00085, 0.012)
    assert (config.prediction_type, config.zero_terminal_snr) == ("epsilon", False)


def test_the_embedded_preset_leaves_no_signal_at_the_noisiest_step() -> None:
    config = fit_config("embedded")
    assert (config.prediction_type, config.zero_terminal_snr) == ("v_prediction", True)
    assert config.timestep_spacing == "trailing"


def test_overrides_are_typed() -> None:
    config = fit_config("embedded", ["steps=7", "lr=2e-4", "region_loss=false", "lambda=0.5", "channels=16,16,32"])
    assert (config.steps, config.lr, config.region_loss, config.lambda_) == (7, 2e-4, False, 0.5)
    assert config.channels == (16, 16, 32)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stpes=7", "--set stpes=7: no such setting; there are base, "),
        ("steps", "--set steps: expected name=value"),
        ("steps=none", "--set steps=none: Input should be a valid integer"),
        ("motion_tokens=1", "--set motion_tokens=1: Input should be greater than or equal to 2"),
        ("precision=fp8", "--set precision=fp8: Input should be 'float32' or 'bf16'"),
    ],
)
def test_a_wrong_override_is_one_clear_line(override: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        fit_config("embedded", [override])
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_latents_wider_than_the_network_are_refused() -> None:
    with pytest.raises(ValueError, match="48 latent channels, the first of channels must be as wide"):
        fit_config("embedded", ["patch=4"])
    assert fit_config("embedded", ["patch=4", "channels=48,64"]).latent_channels == 48
    assert fit_config("embedded", ["patch=4", "latents=12"]).latent_channels == 12
    with pytest.raises(ValueError, match="latents is 13: a block of patch 2 has 12"):
        fit_config("embedded", ["patch=2", "latents=13"])


def test_the_command_lines_load_nothing_heavy_before_they_run() -> None:
    code = (
        "import sys, training, training.fit, training.sample\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'accelerate', 'cv2', 'av', 'dlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
