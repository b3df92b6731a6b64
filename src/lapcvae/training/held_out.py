"""What a training is measured by as it goes: held-out photographs, always with the same noise."""

from __future__ import annotations

import math

import numpy as np
import torch

from lapcvae.models.batch_norm import batch_norms
from lapcvae.training.feed import Feed
from lapcvae.training.statistics import take_statistics
from lapcvae.training.trainable import Trainable

VALIDATION_IMAGES = 256
# Training photographs that batch norm's statistics are taken from at the end; on the way it is VALIDATION_IMAGES.
STATISTICS_IMAGES = 512


class HeldOut:
    """Measures a trainable with the weights it has; autocast is the caller's."""

    def __init__(self, trainable: Trainable, rows: dict[str, np.ndarray], feed: Feed, part: int) -> None:
        """part: images that a step computes at a time, and so the batch whose statistics batch norm knows."""
        self._trainable, self._rows, self._feed, self._part = trainable, rows, feed, part

    @torch.no_grad()
    def measure(self, importance: bool) -> tuple[float, float]:
        """-(evidence bound) of up to `VALIDATION_IMAGES` photographs, and the latents' permutation importance, in nats.

        NaN for what is not asked for, or cannot be had. Leaves the trainable in training mode.
        """
        rows = self._rows["val"][:VALIDATION_IMAGES]
        if len(rows) == 0:
            return math.nan, math.nan
        self.take_statistics(VALIDATION_IMAGES)
        self._trainable.eval()
        packed, noise = next(self._feed.as_they_are(rows, len(rows)))
        terms = self._trainable.forward(packed, noise)  # not compiled: another batch size would compile anew
        found = self._trainable.importance_nats(packed, noise) if importance and len(rows) > 1 else None
        self._trainable.train()
        return float(terms["rate_nats"] + terms["distortion_nats"]), math.nan if found is None else float(found)

    def take_statistics(self, images: int) -> None:
        """Batch norm's, of so many training photographs in batches as large as a step's."""
        if batch_norms(self._trainable):
            rows = self._rows["train"]
            rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), images)).astype(int)]
            take_statistics(self._trainable, self._feed.as_they_are(rows, self._part))
