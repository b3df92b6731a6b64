"""An exponential moving average of the weights, its half-life counted in images so that batch size changes nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """Average of a model's state; buffers (batch-norm statistics) are averaged too, integers copied."""

    def __init__(self, model: nn.Module, half_life_images: int) -> None:
        """The model must keep its tensors in place from now on, as optimisers and `load_state_dict` do."""
        self._half_life = half_life_images
        live = {name: value.detach() for name, value in model.state_dict().items()}
        self.state: dict[str, Tensor] = {name: value.clone() for name, value in live.items()}
        floats = [name for name, value in live.items() if value.is_floating_point()]
        self._pairs = [self.state[name] for name in floats], [live[name] for name in floats]
        self._integers = [(self.state[name], live[name]) for name in live if name not in set(floats)]

    @torch.no_grad()
    def update(self, images_seen: int, batch: int) -> None:
        """Take in the weights after a step; early on the half-life is a tenth of the images seen (EDM's ramp-up)."""
        half_life = min(self._half_life, 0.1 * images_seen)
        decay = 0.5 ** (batch / half_life) if half_life > 0 else 0.0
        torch._foreach_lerp_(*self._pairs, 1 - decay)
        for average, value in self._integers:
            average.copy_(value)
