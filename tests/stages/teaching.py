"""Tiny language models are taught what to say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def learn(model: Any, loss: Callable[[], Any], steps: int) -> None:
    """Until the loss over four lessons is so low that every token is by far the likeliest, or for so many steps."""
    import torch

    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        now = loss()
        optimiser.zero_grad()
        now.backward()
        optimiser.step()
        if now < 0.08:
            break
    model.eval()
