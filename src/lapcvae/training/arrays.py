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

    def pick(self, rows: np.ndarray, flips: np.ndarray) -> tuple[Tensor, ...]:
        """Tensors of these rows and orientations as they are stored, for `unpack`."""
        arrays = [a for a in (self.images, self.coarse_image, self.coarse_mean) if a is not None]
        return tuple(tensor for array in arrays for tensor in array.pick(rows, flips))

    def unpack(self, packed: tuple[Tensor, ...]) -> tuple[Tensor, Coarser | None]:
        """(x_k, level k+1) of what `pick` returned, once it is on the device."""
        x = self.images.unpack(packed[:2])
        if self.coarse_image is None or self.coarse_mean is None:
            return x, None
        image, mean = self.coarse_image.unpack(packed[2:4]), self.coarse_mean.unpack(packed[4:6])
        return x, Coarser(image, mean, self.coarse_log_sigma)

    def gather(self, rows: np.ndarray, flips: np.ndarray) -> tuple[Tensor, Coarser | None]:
        """(x_k, level k+1) of these rows and orientations."""
        return self.unpack(tuple(tensor.to(self.images.device) for tensor in self.pick(rows, flips)))
