"""An exponential moving average of the weights, its half-life counted in images so that batch size changes nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lapcvae.training.pieces import in_pieces


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

    def share(self, images_seen: int, batch: int) -> float:
        """What share of the average a step's weights are; early on the half-life is a tenth of the images seen, that
        step's included (EDM's ramp-up).
        """
        half_life = min(self._half_life, 0.1 * images_seen)
        return 1 - 0.5 ** (batch / half_life) if half_life > 0 else 1.0

    @torch.no_grad()
    def update(self, share: float | Tensor) -> None:
        """Take in the weights after a step. share: in [0, 1]; a 0-d tensor where it is not to stand in a graph."""
        averages, values = self._pairs
        if isinstance(share, Tensor):
            averages, values = in_pieces(averages, values)
            # The same, average - share (average - value), in one kernel: there is no `_foreach_lerp_` by a tensor.
            torch._fused_sgd_(
                averages,
                values,
                [],
                weight_decay=1.0,
                momentum=0.0,
                lr=share,
                dampening=0.0,
                nesterov=False,
                maximize=True,
                is_first_step=False,
            )
        else:
            torch._foreach_lerp_(averages, values, share)
        for average, value in self._integers:
            average.copy_(value)
