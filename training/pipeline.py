"""A trained model as a diffusers pipeline."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AnimateDiffPipeline, DDIMScheduler
from pydantic import ValidationError
from torch import Tensor

from training.arcface import small_arcface
from training.checkpoint import Checkpoint, newest
from training.components import SCRATCH, build, load_arcface
from training.config import FitConfig
from training.framework import Framework
from training.model import conditions, pack_identity
from training.small import wrap_tokenizer


class MotionCharacterPipeline(AnimateDiffPipeline):
    """The stock AnimateDiffPipeline, and `conditions` that makes its `ip_adapter_image_embeds` from I, A and M."""

    framework: Framework

    @classmethod
    def of(cls, framework: Framework) -> MotionCharacterPipeline:
        """The pipeline that runs the framework's models."""
        pipeline = cls(
            vae=framework.vae,
            text_encoder=framework.text_encoder,
            tokenizer=framework.tokenizer,
            unet=framework.unet,
            motion_adapter=None,
            scheduler=DDIMScheduler.from_config(framework.scheduler.config),
            image_encoder=framework.image_encoder,
        )
        pipeline.framework = framework
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @torch.no_grad()
    def conditions(
        self, face: Tensor, reference: Tensor, reference_warp: Tensor, action: str, m: float, guidance: float
    ) -> list[Tensor]:
        """`ip_adapter_image_embeds` of one video; (3, S, S), (3, S, S), (2, 3): see training.batch.Sample.

        action: A, may be "". m: M. With guidance > 1 the other branch comes first: no I, no A, and the same M.
        The stock pipeline hands the same ones to all prompts of a call, so a call makes videos of one I, A and M.
        """
        framework = self.framework
        device = framework.alpha_bar.device
        inputs = (x[None].to(device) for x in (face, reference, reference_warp))
        e_arc, e_clip = framework.encode_face(*inputs)
        motion = framework.spec.motion_control
        intensity = torch.tensor([m], dtype=torch.float32, device=device)
        c = conditions(pack_identity(e_arc, e_clip), framework.encode_text([action]), intensity, motion)
        if guidance <= 1:
            return c
        nothing = pack_identity(torch.zeros_like(e_arc), torch.zeros_like(e_clip))
        other = conditions(nothing, framework.encode_text([""]), intensity, motion)
        return [torch.cat(pair) for pair in zip(other, c, strict=True)]

    @torch.no_grad()
    def animate(
        self,
        face: Tensor,
        reference: Tensor,
        reference_warp: Tensor,
        prompt: str,
        action: str,
        m: float,
        frames: int,
        seed: int,
        guidance: float,
        steps: int,
        negative_prompt: str = "",
    ) -> Tensor:
        """V = F(I, P, A, M): one video (N, 3, S, S), float on the CPU, 0..1. S is that of the reference."""
        made = self(
            prompt=prompt,
            negative_prompt=negative_prompt,
            ip_adapter_image_embeds=self.conditions(face, reference, reference_warp, action, m, guidance),
            num_frames=frames,
            height=reference.shape[-2],
            width=reference.shape[-1],
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
        )
        return made.frames[0].float().cpu()


def load_framework(path: str | Path, device: str = "cpu", ema: bool = True) -> tuple[Framework, Checkpoint]:
    """The framework of a checkpoint folder, or of a run's newest good checkpoint.

    Raises ValueError when there is none, a file is damaged or of another version, or base weights or the device are
    missing.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # a build without CUDA asserts
        raise ValueError(f"device {device}: {str(error).splitlines()[0]}") from error
    path = Path(path)
    checkpoint = Checkpoint(path)
    if (path / "checkpoints").is_dir():
        found, refused = newest(path / "checkpoints")
        if found is None:
            raise ValueError("\n".join([f"{path}: no whole checkpoint", *refused]))
        checkpoint = found
    checkpoint.verify()
    written = checkpoint.config()
    config = fit_config_of(checkpoint)
    arcface = small_arcface() if config.arcface == "train" else load_arcface(config)
    tokenizer = None
    if config.base == SCRATCH:
        from tokenizers import Tokenizer

        tokenizer = wrap_tokenizer(Tokenizer.from_str((checkpoint.folder / "tokenizer.json").read_text()))
    framework = Framework(build(config, arcface, written["frames"]["count"], tokenizer), config)
    load_trained(framework, checkpoint.weights(ema))
    if config.arcface == "train":
        framework.arcface.network.load_state_dict(checkpoint.extra())
    return framework.to(device).eval(), checkpoint


def fit_config_of(checkpoint: Checkpoint) -> FitConfig:
    """The configuration that trained it. Raises ValueError when this version's code cannot take it."""
    try:
        return FitConfig(**checkpoint.config()["config"])
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            f"{checkpoint.folder / 'config.json'}: {key}: {first['msg']}: the checkpoint is of another version of "
            "human-motion; load it with that version"
        ) from None


def load_trained(framework: Framework, state: dict[str, Tensor]) -> None:
    """Put trained tensors into the framework. Raises ValueError when the names do not match."""
    trainable = framework.trainable()
    if trainable.keys() != state.keys():
        different = sorted(trainable.keys() ^ state.keys())
        raise ValueError(f"checkpoint and config do not fit: {len(different)} tensors differ, the first {different[0]}")
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(state[name])


def load_pipeline(path: str | Path, device: str = "cpu", ema: bool = True) -> MotionCharacterPipeline:
    """A diffusers pipeline of a checkpoint folder or of a run's output folder; errors as `load_framework`."""
    framework, _ = load_framework(path, device, ema)
    return MotionCharacterPipeline.of(framework)
