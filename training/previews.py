"""Videos of what the model makes while it trains, for TensorBoard."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch

from training.batch import Batch
from training.config import FitConfig
from training.framework import Framework
from training.pipeline import MotionCharacterPipeline


@torch.no_grad()
def previews(framework: Framework, batch: Batch, config: FitConfig, count: int = 2) -> np.ndarray:
    """uint8 RGB video (N, 2 S, count S, 3): the first `count` samples side by side, above what the model makes of their
    conditions."""
    part = batch.take(list(range(min(count, len(batch.clip_id)))))
    was_training = framework.training
    framework.eval()
    pipeline = MotionCharacterPipeline.of(framework)
    made = [
        pipeline.animate(
            part.face[i],
            part.reference[i],
            part.reference_warp[i],
            part.caption[i],
            part.action[i],
            float(part.m[i]),
            frames=part.video.shape[1],
            seed=config.seed + i,
            guidance=config.guidance,
            steps=config.sample_steps,
        )
        for i in range(len(part.clip_id))
    ]
    framework.train(was_training)
    grid = torch.stack([(part.video + 1) / 2, torch.stack(made)])  # (2, B, N, 3, S, S)
    video = grid.permute(2, 0, 4, 1, 5, 3).flatten(3, 4).flatten(1, 2)  # (N, 2 S, B S, 3)
    return (video.clamp(0, 1) * 255).round().byte().numpy()


def add_video(writer: Any, tag: str, frames: np.ndarray, step: int, fps: float) -> None:
    """Show uint8 RGB frames (N, H, W, 3) in TensorBoard as an animated GIF: its own `add_video` needs moviepy."""
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    pictures = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, "GIF", save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0, optimize=False
    )
    height, width = frames.shape[1:3]
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=buffer.getvalue())
    writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
