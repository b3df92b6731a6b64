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


# Share of the GPU's free memory that one array may take; what is larger is streamed.
RESIDENT_SHARE = 0.25


class PackedImages:
    """A packed array of images, read as B 3 S S fp32 on a device.

    Arrays are N S S 3 (mirrored on reading) or N 2 S S 3 (orientation on axis 1); uint8 is divided by 255, fp16 is
    read as it is. On the processor the file's mapping is read, so memory does not grow with the data. On a GPU the
    packed array lies in its memory where it fits, and is otherwise streamed: rows are picked from the mapping into
    page-locked memory, from which they are copied while the GPU computes.
    """

    def __init__(self, path: Path, device: torch.device, resident: bool | None = None) -> None:
        """resident: whether the array lies in the device's memory; by default on a GPU where it fits."""
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not a readable packed array ({error}); run `dvc repro` to make it anew") from None
        if array.ndim not in (4, 5) or array.shape[-1] != 3:
            raise DataError(f"{path}: expected N S S 3 or N 2 S S 3, found {array.shape}")
        if array.dtype not in (np.uint8, np.float16):
            raise DataError(f"{path}: expected uint8 or float16, found {array.dtype}; run `dvc repro` to make it anew")
        self._oriented = array.ndim == 5
        self.device = device
        self.count, self.side = array.shape[0], array.shape[-2]
        if resident is None:
            resident = device.type == "cuda" and array.nbytes < RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]
        self.resident = resident and device.type != "cpu"
        whole = np.array(array) if resident else array
        self._array = torch.from_numpy(whole).to(device) if self.resident else whole

    def index(self, rows: np.ndarray, flips: np.ndarray) -> Tensor | None:
        """Both on the device, 2 B int64, for `pick`; None where the array does not lie there."""
        return None if isinstance(self._array, np.ndarray) else self._index(rows, flips)

    def pick(self, rows: np.ndarray, flips: np.ndarray, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(pixels as stored, flips) of these rows and orientations: on the device, or to be copied there.

        index: what `index` gave for them, of this array or of another one that lies on the device.
        """
        if isinstance(self._array, np.ndarray):
            picked = self._array[rows, flips] if self._oriented else self._array[rows]
            pixels, mirrored = torch.from_numpy(picked), torch.from_numpy(flips)
            return (pixels, mirrored) if self.device.type == "cpu" else (pixels.pin_memory(), mirrored.pin_memory())
        at, mirrored = self._index(rows, flips) if index is None else index
        return (self._array[at, mirrored] if self._oriented else self._array[at]), mirrored

    def _index(self, rows: np.ndarray, flips: np.ndarray) -> Tensor:
        return torch.from_numpy(np.stack([rows, flips])).pin_memory().to(self.device, non_blocking=True)

    def unpack(self, packed: tuple[Tensor, ...]) -> Tensor:
        """B 3 S S fp32, stored channels last, of what `pick` returned, once it is on the device."""
        x, flips = packed
        scale = 255.0 if x.dtype == torch.uint8 else 1.0
        x = x.permute(0, 3, 1, 2).float() / scale
        if not self._oriented:
            x = torch.where(flips.bool().view(-1, 1, 1, 1), x.flip(-1), x)
        return x

    def gather(self, rows: np.ndarray, flips: np.ndarray) -> Tensor:
        """Images of these rows and orientations on the device: B 3 S S fp32, stored channels last."""
        pixels, mirrored = self.pick(rows, flips)
        return self.unpack((pixels.to(self.device), mirrored.to(self.device)))
