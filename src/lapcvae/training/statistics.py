"""Batch norm's running statistics, taken anew for the weights that are about to be measured.

Those gathered in training belong to the weights of some updates ago, and an average of weights has none of its own
(Izmailov et al. 2018, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim.swa_utils import update_bn

from lapcvae.training.feed import Batch
from lapcvae.training.trainable import Terms, Trainable


def take_statistics(trainable: Trainable, batches: Iterable[Batch]) -> None:
    """The mean of the batches' own statistics, with the weights as they are; autocast is the caller's."""
    update_bn(((batch,) for batch in batches), _OfBatch(trainable))


class _OfBatch(nn.Module):
    """A trainable as `update_bn` calls a model: with one thing."""

    def __init__(self, trainable: Trainable) -> None:
        super().__init__()
        self.trainable = trainable
        self.training = trainable.training  # which `update_bn` brings back

    def forward(self, batch: Batch) -> Terms:
        return self.trainable.forward(*batch)
