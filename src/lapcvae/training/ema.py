"""An exponential moving average of the weights, its half-life counted in images so that batch size changes nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """Average of a model's state; buffers (batch-norm statistics) are averaged too, integers copied."""

    def __init__(self, model: nn.Module, half_life_images: int) -> None:
        self._half_life = half_life_images
        self.state: dict[str, Tensor] = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self._floats = [n for n, v in self.state.items() if v.is_floating_point()]

    @torch.no_grad()
    def update(self, model: nn.Module, images_seen: int, batch: int) -> None:
        """Take in the weights after a step; early on the half-life is a tenth of the images seen (EDM's ramp-up)."""
        half_life = min(self._half_life, 0.1 * images_seen)
        decay = 0.5 ** (batch / half_life) if half_life > 0 else 0.0
        live = model.state_dict()
        torch._foreach_lerp_([self.state[n] for n in self._floats], [live[n] for n in self._floats], 1 - decay)
        for name, value in live.items():
            if not value.is_floating_point():
                self.state[name].copy_(value)
