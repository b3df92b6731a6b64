"""All that an update is computed from, in one row of bytes: brought to a graph's place, it is a single copy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

Batch = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
# Bytes that every tensor in a row begins at a multiple of, as those do that have memory of their own on a GPU.
_APART = 256


@dataclass(frozen=True)
class _Place:
    start: int
    shape: tuple[int, ...]
    kind: torch.dtype

    @property
    def end(self) -> int:
        return self.start + math.prod(self.shape) * self.kind.itemsize

    def of(self, row: Tensor) -> Tensor:
        return row[self.start : self.end].view(self.kind).view(self.shape)


class Layout:
    """Where an update's packed tensors, those of each part of the batch, and its noise lie in a row of bytes."""

    def __init__(
        self, packed: tuple[Tensor, ...], noise: list[tuple[int, ...]], batch: int, parts: list[slice]
    ) -> None:
        """packed: one image as it is picked; what is in it more than once, as an orientation is, has one place. noise:
        the shapes of an image's. batch: images of the noise. parts: each part's among them, alike in number.
        """
        self._parts, self.size = parts, 0
        images = parts[0].stop - parts[0].start
        different = {id(tensor): tensor for tensor in packed}
        self._packed = [self._next((len(parts), images, *t.shape[1:]), t.dtype) for t in different.values()]
        self._which = [list(different).index(id(tensor)) for tensor in packed]
        self._noise = [self._next((batch, *shape), torch.float32) for shape in noise]

    def put(self, rows: Tensor, packed: tuple[Tensor, ...]) -> None:
        """Enter what was picked for these rows (U `size` uint8): for each its parts' images one after another."""
        for at, place in enumerate(self._packed):
            tensor = packed[self._which.index(at)].to(rows.device, non_blocking=True)
            rows[:, place.start : place.end] = tensor.reshape(len(rows), -1).view(torch.uint8)

    def noise(self, row: Tensor) -> Iterator[Tensor]:
        """The places of a row's noise, to be drawn into."""
        return (place.of(row) for place in self._noise)

    def batches(self, row: Tensor) -> list[Batch]:
        """(packed, noise) of each part: views of the row."""
        packed, noise = [place.of(row) for place in self._packed], [place.of(row) for place in self._noise]
        return [
            (tuple(packed[which][part] for which in self._which), tuple(whole[images] for whole in noise))
            for part, images in enumerate(self._parts)
        ]

    def _next(self, shape: tuple[int, ...], kind: torch.dtype) -> _Place:
        place = _Place(self.size, shape, kind)
        self.size = -(-place.end // _APART) * _APART
        return place


@dataclass(frozen=True)
class Inputs:
    """One update's: a row of bytes (`layout.size` uint8)."""

    row: Tensor
    layout: Layout

    def batches(self) -> list[Batch]:
        """(packed, noise) of each part: views of the row."""
        return self.layout.batches(self.row)
