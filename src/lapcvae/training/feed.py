"""What a step eats: packed tensors on the device and noise, each process and each part its own rows of the batch.

Where arrays lie on the device, picking rows is a kernel. Where they are streamed, a thread picks the next batch into
page-locked memory and copies it on a stream of its own while the device computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lapcvae.data.batches import BatchOrder
from lapcvae.errors import ConfigError
from lapcvae.training.processes import Processes
from lapcvae.training.trainable import Trainable

Batch = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]


class Feed:
    """Batches of a trainable as functions of (seed, update), divided among processes and parts."""

    def __init__(
        self, trainable: Trainable, order: BatchOrder, seed: int, processes: Processes, batch: int, accumulate: int
    ) -> None:
        parts = processes.count * accumulate
        if batch % parts:
            raise ConfigError(
                f"params.yaml: `batch` ({batch}) must be a multiple of {parts}: {processes.count} processes times "
                f"`accumulate` {accumulate}"
            )
        self._trainable, self._order, self._seed, self._device = trainable, order, seed, processes.device
        self._batch, share = batch, batch // parts
        starts = [(part * processes.count + processes.rank) * share for part in range(accumulate)]
        self._slices = [slice(start, start + share) for start in starts]
        self._noise = torch.Generator(processes.device)
        self._ahead: tuple[int, Future[Any]] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._streamed: bool | None = None
        self._stream = torch.cuda.Stream(processes.device) if processes.device.type == "cuda" else None

    def batches(self, update: int) -> list[Batch]:
        """(packed, noise) of each part of an update, counted from 0."""
        # Seeds of neighbouring steps and of other uses must not meet: SeedSequence mixes them.
        self._noise.manual_seed(int(np.random.SeedSequence([self._seed, 2, update]).generate_state(1)[0]))
        noise = self._draw(self._batch)
        return [
            (packed, tuple(whole[part] for whole in noise))
            for part, packed in zip(self._slices, self._packed(update), strict=True)
        ]

    def as_they_are(self, rows: np.ndarray, at_once: int) -> Iterator[Batch]:
        """(packed, noise) of these rows, not mirrored, at most `at_once` at a time, with noise of the seed alone.

        The whole of them in every process.
        """
        self._noise.manual_seed(self._seed)
        for some in np.array_split(rows, -(-len(rows) // at_once)):  # alike in size: batch norm cannot use one image
            packed = self._trainable.pick(some, np.zeros_like(some))
            yield tuple(tensor.to(self._device) for tensor in packed), self._draw(len(some))

    def _draw(self, images: int) -> tuple[Tensor, ...]:
        # Always of the whole batch: which rows a process or a part takes must not change what is drawn.
        return tuple(
            torch.randn((images, *shape), generator=self._noise, device=self._device)
            for shape in self._trainable.noise_shapes()
        )

    def _packed(self, update: int) -> list[tuple[Tensor, ...]]:
        """The packed tensors of each part, on the device."""
        if self._streamed is None:
            self._streamed = self._stream is not None and not self._resident(update)
        if not self._streamed:
            return [self._trainable.pick(*rows) for rows in self._rows(update)]
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
        if self._ahead is None or self._ahead[0] != update:
            self._ahead = (update, self._thread.submit(self._copy, update))
        parts, copied = self._ahead[1].result()
        self._ahead = (update + 1, self._thread.submit(self._copy, update + 1))
        here = torch.cuda.current_stream(self._device)
        here.wait_event(copied)
        for tensor in (tensor for part in parts for tensor in part):
            tensor.record_stream(here)
        return parts

    def _copy(self, update: int) -> tuple[list[tuple[Tensor, ...]], torch.cuda.Event]:
        """Pick rows from the mappings and start their way to the device; in the feed's thread and on its stream."""
        assert self._stream is not None
        with torch.cuda.stream(self._stream):
            parts = [
                tuple(tensor.to(self._device, non_blocking=True) for tensor in self._trainable.pick(*rows))
                for rows in self._rows(update)
            ]
            return parts, self._stream.record_event()

    def _rows(self, update: int) -> list[tuple[np.ndarray, np.ndarray]]:
        rows, flips = self._order.at(update)
        return [(rows[part], flips[part]) for part in self._slices]

    def _resident(self, update: int) -> bool:
        rows, flips = self._order.at(update)
        return all(tensor.device.type == "cuda" for tensor in self._trainable.pick(rows[:1], flips[:1]))
