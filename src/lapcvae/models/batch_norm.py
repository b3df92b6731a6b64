"""Where a network has batch norm: in training what it computes for an image then depends on the rest of the batch."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Its batch norm layers, of any number of dimensions and across processes or not."""
    return [part for part in model.modules() if isinstance(part, _BatchNorm)]
