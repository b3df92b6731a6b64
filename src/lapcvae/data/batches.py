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
        epoch, start = divmod(step * self._batch, len(self._rows))
        parts, missing = list[np.ndarray](), self._batch
        while missing:
            parts.append(self._shuffled(epoch)[start : start + missing])
            epoch, start, missing = epoch + 1, 0, missing - len(parts[-1])
        picked = np.concatenate(parts)
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
        self._path, self._oriented = path, array.ndim == 5
        self.device = device
        self.count, self.side = array.shape[0], array.shape[-2]
        if resident is None:
            resident = device.type == "cuda" and array.nbytes < RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]
        self.resident = resident and device.type != "cpu"
        whole = np.array(array) if resident else array
        self._array = torch.from_numpy(whole).to(device) if self.resident else whole
        self._kind = torch.uint8 if array.dtype == np.uint8 else torch.float16

    def index(self, rows: np.ndarray, flips: np.ndarray) -> tuple[Tensor, Tensor]:
        """Both, B int64 each, for `pick`: on the device where the array lies there, or to be copied there.

        Raises `DataError` for a row that the array does not have.
        """
        if len(rows) and rows.max() >= self.count:
            raise DataError(f"{self._path}: has {self.count} images, and no row {rows.max()}; run `dvc repro` anew")
        index = torch.from_numpy(np.stack([rows, flips]))
        if self.device.type != "cpu":
            index = index.pin_memory()
        at, mirrored = index.to(self.device, non_blocking=True) if self.resident else index
        return at, mirrored

    def pick(
        self, rows: np.ndarray, flips: np.ndarray, index: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """(pixels as stored, flips) of these rows and orientations: on the device, or to be copied there.

        index: what `index` gave for them, of this array or of another one that is as `resident`.
        """
        at, mirrored = self.index(rows, flips) if index is None else index
        if isinstance(self._array, Tensor):
            return (self._array[at, mirrored] if self._oriented else self._array[at]), mirrored
        shape = self._array.shape[-3:]
        pixels = torch.empty((len(rows), *shape), dtype=self._kind, pin_memory=self.device.type != "cpu")
        # As if orientations were rows. `clip`, since `raise` would write to a buffer first; there is nothing to clip.
        # Indexing with an array would keep other threads from running.
        at_once = 2 * rows + flips if self._oriented else rows
        np.take(self._array.reshape(-1, *shape), at_once, axis=0, out=pixels.numpy(), mode="clip")
        return pixels, mirrored

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
