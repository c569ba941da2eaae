"""What a training run is told: one frozen model, and the two presets in one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class FitConfig(BaseModel):
    """Every hyper-parameter of a run; part of its checkpoints. What the paper does not print is ours: see PRESETS."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # what is trained: folders in diffusers' or transformers' layout, or "scratch" for small models without weights
    base: str = Field(description="Stable Diffusion 1.5, or 'scratch'")
    motion_adapter: str = Field(description="AnimateDiff motion modules, or 'scratch'")
    image_encoder: str = Field(description="CLIP vision model with projection, or 'scratch'")
    arcface: str = Field(description="ArcFace as an ONNX file, the name of a model file, or 'train'")
    ip_adapter: str | None = Field(None, description="IP-Adapter weights (safetensors) that K^i, V^i start from")
    # the adapter
    id_tokens: int = Field(16, ge=1)
    motion_tokens: int = Field(4, ge=2)
    lambda_: float = Field(1.0, ge=0)
    alpha: float = Field(1.0, ge=0)
    # the small models of "scratch"
    channels: tuple[int, ...] = (32, 64)
    text_dim: int = Field(32, ge=8, multiple_of=8)
    patch: int = Field(2, ge=1, description="side of the pixel block that is one latent pixel")
    latents: int | None = Field(None, ge=1, description="lowest frequencies of a block that are kept; None: all")
    latent_scale: float = Field(1.0, gt=0, description="what latents are multiplied by, as a VAE's scaling_factor")
    arcface_steps: int = Field(300, ge=1)
    # data
    size: int = Field(512, ge=8, multiple_of=8, description="side of the video in pixels")
    flip: float = Field(0.5, ge=0, le=1)
    zoom: float = Field(1.0, ge=1, le=2, description="resize by up to this, then centre crop; M grows along")
    workers: int = Field(4, ge=0)
    max_unreadable: float = Field(0.05, ge=0, le=1, description="share of draws at which training stops")
    # conditions dropped: disjoint events text, image, both (with the action); the action also by itself
    drop_text: float = Field(0.05, ge=0, le=1)
    drop_image: float = Field(0.05, ge=0, le=1)
    drop_both: float = Field(0.05, ge=0, le=1)
    drop_action: float = Field(0.05, ge=0, le=1)
    drop_clip: float = Field(0.5, ge=0, le=1)
    # losses
    region_loss: bool = True
    identity_loss: bool = True
    motion_control: bool = True
    beta: float = Field(0.1, ge=0)
    identity_t_max: int = Field(300, ge=0, le=1000)
    identity_frames: int = Field(2, ge=1)
    # noise schedule
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: Literal["linear", "scaled_linear"] = "linear"
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    zero_terminal_snr: bool = False
    timestep_spacing: Literal["leading", "trailing", "linspace"] = "leading"
    # optimisation
    steps: int = Field(12_000, ge=1)
    batch: int = Field(2, ge=1, description="videos per device and pass")
    accumulate: int = Field(1, ge=1)
    lr: float = Field(1e-5, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    warmup: int = Field(0, ge=0)
    lr_decay: Literal["none", "cosine"] = Field("none", description="to 0 at the last step")
    clip_norm: float = Field(1.0, gt=0)
    ema: float = Field(0.999, ge=0, lt=1)
    precision: Literal["float32", "bf16"] = "bf16"
    gradient_checkpointing: bool = True
    seed: int = Field(0, ge=0, lt=2**31)
    # along the way
    log_every: int = Field(10, ge=1)
    gaps_every: int = Field(500, ge=1)
    sample_every: int = Field(1000, ge=1)
    checkpoint_every: int = Field(500, ge=1)
    keep_checkpoints: int = Field(3, ge=2)
    # sampling
    guidance: float = Field(8.0, ge=1)
    sample_steps: int = Field(30, ge=1)

    @model_validator(mode="after")
    def _noise_fits_through(self) -> FitConfig:
        # Seen with patch 4 and width 32: the loss fell, and every sample kept the noise that did not fit through.
        if self.base == "scratch" and self.latent_channels > self.channels[0]:
            raise ValueError(f"{self.latent_channels} latent channels, the first of channels must be as wide")
        if self.latents is not None and self.latents > 3 * self.patch**2:
            raise ValueError(f"latents is {self.latents}: a block of patch {self.patch} has {3 * self.patch**2}")
        return self

    @property
    def latent_channels(self) -> int:
        """Of the small models."""
        return self.latents or 3 * self.patch**2


PAPER: dict[str, Any] = {
    "base": "stable-diffusion-v1-5",
    "motion_adapter": "animatediff-motion-adapter-v1-5-2",
    "image_encoder": "ip-adapter-image-encoder",
    "arcface": "w600k_r50",
}
SCRATCH: dict[str, Any] = {
    "base": "scratch",
    "motion_adapter": "scratch",
    "image_encoder": "scratch",
    "arcface": "train",
}

# paper: section 4.1 where it prints a value (marked *). lambda, alpha, beta, EMA, weight decay and clipping are ours.
# embedded: small models without weights, on a CPU. What moves where is decided at the noisiest steps, so its schedule
# leaves no signal there (arXiv 2305.08891); the paper's keeps the schedule that AnimateDiff was trained with.
_TABLE: tuple[tuple[str, Any, Any], ...] = (
    # name,                  paper,     embedded
    ("size", 512, 32),  # *
    ("steps", 12_000, 3_000),  # *
    ("batch", 2, 8),  # * on 8 GPUs
    ("lr", 1e-5, 2e-3),  # *
    ("flip", 0.5, 0.5),  # *
    ("drop_text", 0.05, 0.05),  # *
    ("drop_image", 0.05, 0.05),  # *
    ("drop_clip", 0.5, 0.5),  # *
    ("guidance", 8.0, 2.0),  # *
    ("sample_steps", 30, 20),  # *
    ("prediction_type", "epsilon", "v_prediction"),
    ("zero_terminal_snr", False, True),
    ("timestep_spacing", "leading", "trailing"),
    ("warmup", 0, 50),
    ("precision", "bf16", "float32"),
    ("gradient_checkpointing", True, False),
    ("workers", 4, 0),
)
PRESETS: dict[str, dict[str, Any]] = {
    "paper": PAPER | {name: paper for name, paper, _ in _TABLE},
    "embedded": SCRATCH | {name: embedded for name, _, embedded in _TABLE},
}


def fit_config(preset: str, overrides: Sequence[str] = ()) -> FitConfig:
    """The preset with `name=value` overrides. Raises ValueError with one line that names the key and what is wrong."""
    values = dict(PRESETS[preset])
    for override in overrides:
        name, equals, value = override.partition("=")
        name = {"lambda": "lambda_"}.get(name, name)
        if not equals:
            raise ValueError(f"--set {override}: expected name=value")
        if name not in FitConfig.model_fields:
            raise ValueError(f"--set {override}: no such setting; there are {', '.join(FitConfig.model_fields)}")
        values[name] = value.split(",") if name == "channels" else value
    try:
        return FitConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"--set {first['loc'][0]}={first['input']}: " if first["loc"] else ""
        raise ValueError(where + first["msg"]) from None
