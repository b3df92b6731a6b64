"""What a step eats: packed tensors on the device and noise, each process and each part its own rows of the batch.

On a GPU the next update's batch is made on a stream of its own while it computes. Where arrays lie in its memory,
picking rows is a kernel; where they are streamed, a thread picks them into page-locked memory, to be copied from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lapcvae.data.batches import BatchOrder
from lapcvae.errors import ConfigError
from lapcvae.training.processes import Processes
from lapcvae.training.trainable import Trainable

Batch = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
# A batch's parts, and when they are there.
Begun = Callable[[], tuple[list[Batch], torch.cuda.Event]]


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
        self._stream = torch.cuda.Stream(processes.device) if processes.device.type == "cuda" else None
        self._ahead: tuple[int, Begun] | None = None
        self._given: list[Batch] = []
        self._thread: ThreadPoolExecutor | None = None

    def batches(self, update: int) -> list[Batch]:
        """(packed, noise) of each part of an update, counted from 0.

        On a GPU they hold until the next call, for what the current stream has been given by then.
        """
        if self._stream is None:
            return self._parts(self._packed(update), self._noise_of(update))
        here = torch.cuda.current_stream(self._device)
        if self._ahead is None or self._ahead[0] != update:
            self._ahead = update, self._begin(update, self._stream, here)
        # Those given before are let go once the stream that makes new ones in their place waits for their use.
        self._given, there = self._ahead[1]()
        self._ahead = update + 1, self._begin(update + 1, self._stream, here)
        here.wait_event(there)
        return self._given

    def as_they_are(self, rows: np.ndarray, at_once: int) -> Iterator[Batch]:
        """(packed, noise) of these rows, not mirrored, at most `at_once` at a time, with noise of the seed alone.

        The whole of them in every process.
        """
        noise = torch.Generator(self._device).manual_seed(self._seed)
        for some in np.array_split(rows, -(-len(rows) // at_once)):  # alike in size: batch norm cannot use one image
            packed = self._trainable.pick(some, np.zeros_like(some))
            yield tuple(tensor.to(self._device) for tensor in packed), self._draw(len(some), noise)

    def close(self) -> None:
        """Wait for what has been begun: it reads the trainable's arrays."""
        if self._thread is not None:
            self._thread.shutdown()
        if self._stream is not None:
            self._stream.synchronize()

    def _begin(self, update: int, stream: torch.cuda.Stream, here: torch.cuda.Stream) -> Begun:
        """Start making an update's batch on `stream`, after all that `here` has been given."""
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            noise = self._noise_of(update)  # by this thread: its shapes depend on the trainable's mode, now
            if self._resident:
                made = self._parts(self._packed(update), noise), stream.record_event()
                return lambda: made

        def make() -> tuple[list[Batch], torch.cuda.Event]:
            with torch.cuda.stream(stream):
                packed = [self._sent(part) for part in self._packed(update)]
                return self._parts(packed, noise), stream.record_event()

        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
        return self._thread.submit(make).result

    def _parts(self, packed: list[tuple[Tensor, ...]], noise: tuple[Tensor, ...]) -> list[Batch]:
        return [
            (of_part, tuple(whole[part] for whole in noise)) for part, of_part in zip(self._slices, packed, strict=True)
        ]

    def _noise_of(self, update: int) -> tuple[Tensor, ...]:
        # Seeds of neighbouring steps and of other uses must not meet: SeedSequence mixes them.
        self._noise.manual_seed(int(np.random.SeedSequence([self._seed, 2, update]).generate_state(1)[0]))
        # Always of the whole batch: which rows a process or a part takes must not change what is drawn.
        return self._draw(self._batch, self._noise)

    def _draw(self, images: int, noise: torch.Generator) -> tuple[Tensor, ...]:
        return tuple(
            torch.randn((images, *shape), generator=noise, device=self._device)
            for shape in self._trainable.noise_shapes()
        )

    def _packed(self, update: int) -> list[tuple[Tensor, ...]]:
        """The packed tensors of each part, on the device or to be copied there."""
        return [self._trainable.pick(*rows) for rows in self._rows(update)]

    def _sent(self, part: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """On the device; what is in it more than once, as an orientation is, is sent once."""
        sent = {id(tensor): tensor.to(self._device, non_blocking=True) for tensor in part}
        return tuple(sent[id(tensor)] for tensor in part)

    def _rows(self, update: int) -> list[tuple[np.ndarray, np.ndarray]]:
        rows, flips = self._order.at(update)
        return [(rows[part], flips[part]) for part in self._slices]

    @cached_property
    def _resident(self) -> bool:
        rows, flips = self._order.at(0)
        return all(tensor.is_cuda for tensor in self._trainable.pick(rows[:1], flips[:1]))
