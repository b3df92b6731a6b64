"""Batches as pure functions of (seed, step), gathered from packed arrays.

A batch needs no state: the same seed and step give the same photographs and mirrorings whatever ran before, so a
resumed run sees what an unbroken one would have seen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lapcvae.errors import DataError


class BatchOrder:
    """Which rows, mirrored or not, make up each step's batch."""

    def __init__(self, rows: np.ndarray, batch: int, seed: int) -> None:
        """rows: indices of the training rows; `batch` of them a step, every row once an epoch in a new order."""
        if len(rows) == 0:
            raise DataError("there is no training row to make batches from")
        self._rows, self._batch, self._seed = np.asarray(rows), batch, seed
        self._epoch, self._order = -1, self._rows

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows, flips) of a step, counted from 0; both B int64, flips 0 or 1."""
        positions = np.arange(step * self._batch, (step + 1) * self._batch)
        picked = np.empty(self._batch, dtype=np.int64)
        for epoch in np.unique(positions // len(self._rows)):
            here = positions // len(self._rows) == epoch
            picked[here] = self._shuffled(int(epoch))[positions[here] % len(self._rows)]
        flips = np.random.default_rng([self._seed, 1, step]).integers(0, 2, self._batch)
        return picked, flips

    def _shuffled(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            order = np.random.default_rng([self._seed, 0, epoch]).permutation(len(self._rows))
            self._epoch, self._order = epoch, self._rows[order]
        return self._order


class PackedImages:
    """A packed array of images on a device, read as B 3 S S fp32.

    Arrays are N S S 3 (mirrored on reading) or N 2 S S 3 (orientation on axis 1); uint8 is divided by 255, fp16 is
    read as it is.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not a readable packed array ({error}); run `dvc repro` to make it anew") from None
        if array.ndim not in (4, 5) or array.shape[-1] != 3:
            raise DataError(f"{path}: expected N S S 3 or N 2 S S 3, found {array.shape}")
        self._oriented = array.ndim == 5
        # On the processor the mapping itself is read, so memory does not grow with the data.
        self._array = array if device.type == "cpu" else torch.from_numpy(np.array(array)).to(device)
        self._device = device
        self.count, self.side = array.shape[0], array.shape[-2]

    def gather(self, rows: np.ndarray, flips: np.ndarray) -> Tensor:
        """Images of these rows and orientations: B 3 S S fp32, stored channels last."""
        if isinstance(self._array, np.ndarray):
            picked = self._array[rows, flips] if self._oriented else self._array[rows]
            x = torch.from_numpy(picked)
        else:
            at = torch.from_numpy(rows).to(self._device)
            x = self._array[at, torch.from_numpy(flips).to(self._device)] if self._oriented else self._array[at]
        scale = 255.0 if x.dtype == torch.uint8 else 1.0
        x = x.permute(0, 3, 1, 2).float() / scale
        if not self._oriented:
            mirrored = torch.from_numpy(flips).to(x.device).bool().view(-1, 1, 1, 1)
            x = torch.where(mirrored, x.flip(-1), x)
        return x
