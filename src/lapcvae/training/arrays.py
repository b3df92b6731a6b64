"""The packed arrays one level trains from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lapcvae.data.batches import PackedImages
from lapcvae.models.level import Coarser


@dataclass(frozen=True)
class LevelArrays:
    """Packed arrays a level trains from: its own images x_k and, below the coarsest, level k+1 as it rebuilt them."""

    images: PackedImages
    coarse_image: PackedImages | None = None
    coarse_mean: PackedImages | None = None
    coarse_log_sigma: float = 0.0

    def gather(self, rows: np.ndarray, flips: np.ndarray) -> tuple[Tensor, Coarser | None]:
        """(x_k, level k+1) of these rows and orientations."""
        x = self.images.gather(rows, flips)
        if self.coarse_image is None or self.coarse_mean is None:
            return x, None
        return x, Coarser(
            self.coarse_image.gather(rows, flips), self.coarse_mean.gather(rows, flips), self.coarse_log_sigma
        )
