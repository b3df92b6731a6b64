"""Where samples get their noise: a generator, or tensors drawn beforehand.

Training draws all noise of a batch before the networks run. A step is then a pure function of tensors, which can be
compiled, and each process of several takes its own rows of what one process would have drawn for the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Drawn:
    """Standard normal tensors drawn beforehand, handed out in order."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors, self._next = tuple(tensors), 0

    def take(self, shape: torch.Size) -> Tensor:
        """The next tensor. Raises `ValueError` where it was drawn in another shape, or where all are taken."""
        if self._next == len(self._tensors) or self._tensors[self._next].shape != shape:
            raise ValueError(
                f"noise {self._next + 1} of {len(self._tensors)} is wanted as {tuple(shape)}; the trainable's "
                "`noise_shapes` must name every draw of its forward, in order"
            )
        self._next += 1
        return self._tensors[self._next - 1]


Noise = torch.Generator | Drawn


def standard_normal(shape: torch.Size, noise: Noise | None, device: torch.device, dtype: torch.dtype) -> Tensor:
    """N(0, 1) of a shape on a device; of PyTorch's global generator where `noise` is None."""
    if isinstance(noise, Drawn):
        return noise.take(shape)
    return torch.randn(shape, generator=noise, device=device, dtype=dtype)
