"""Pictures of what the model makes while it trains."""

from __future__ import annotations

import numpy as np
import torch

from training.batch import Batch
from training.config import FitConfig
from training.framework import Framework
from training.pipeline import MotionCharacterPipeline


@torch.no_grad()
def previews(framework: Framework, batch: Batch, config: FitConfig, count: int = 2) -> np.ndarray:
    """uint8 RGB picture: for each of the first `count` samples a row of its frames above a row of the model's."""
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
    rows = torch.stack([(part.video + 1) / 2, torch.stack(made)], 1).flatten(0, 1)  # (2 B, N, 3, S, S)
    picture = rows.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)  # (2 B S, N S, 3)
    return (picture.clamp(0, 1) * 255).round().byte().numpy()
