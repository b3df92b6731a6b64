"""What a step eats: packed tensors on the device and noise, each process and each part its own rows of the batch.

The batches of a few updates are made at once. For a GPU that is done ahead, on a stream of their own while it computes.
Where arrays lie in its memory, picking rows is a kernel; where they are streamed, a thread picks them into page-locked
memory, to be copied from there.
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
from lapcvae.training.layout import Batch, Inputs, Layout
from lapcvae.training.processes import Processes
from lapcvae.training.trainable import Trainable

# Updates, and bytes, that are made at once at most. One by one, small batches take longer to begin than a GPU takes to
# compute; and a processor, whose caches are full of the update before, takes several times as long for each.
_UPDATES, _BYTES = 16, 8 * 2**20
# A row an update, and when they are there.
Begun = Callable[[], tuple[Tensor, torch.cuda.Event]]


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
        # Those that are being given, and for a GPU those that are being made.
        self._updates, self._rows = range(0), torch.empty(0)
        self._ahead: tuple[range, Begun] | None = None
        self._thread: ThreadPoolExecutor | None = None

    def inputs(self, update: int) -> Inputs:
        """An update's, counted from 0: functions of (seed, update), in training mode.

        On a GPU they hold until the next call, for what the current stream has been given by then.
        """
        if update not in self._updates:
            if self._stream is None:
                updates = self._from(update)
                self._rows = self._empty(len(updates))
                self._draw_into(self._rows, updates)
                self._pick_into(self._rows, updates)
                self._updates = updates
            else:
                self._turn_to(update, self._stream, torch.cuda.current_stream(self._device))
        return Inputs(self._rows[update - self._updates.start], self._layout)

    def as_they_are(self, rows: np.ndarray, at_once: int) -> Iterator[Batch]:
        """(packed, noise) of these rows, not mirrored, at most `at_once` at a time, with noise of the seed alone.

        The whole of them in every process.
        """
        noise = torch.Generator(self._device).manual_seed(self._seed)
        for some in np.array_split(rows, -(-len(rows) // at_once)):  # alike in size: batch norm cannot use one image
            packed = tuple(tensor.to(self._device) for tensor in self._trainable.pick(some, np.zeros_like(some)))
            drawn = (
                torch.randn((len(some), *shape), generator=noise, device=self._device)
                for shape in self._trainable.noise_shapes()
            )
            yield packed, tuple(drawn)

    def close(self) -> None:
        """Wait for what has been begun: it reads the trainable's arrays."""
        if self._thread is not None:
            self._thread.shutdown()
        if self._stream is not None:
            self._stream.synchronize()

    def _turn_to(self, update: int, stream: torch.cuda.Stream, here: torch.cuda.Stream) -> None:
        """Give what was made ahead, which by now is there as a rule, and begin those after it."""
        if self._ahead is None or self._ahead[0].start != update:
            self._ahead = self._begin(update, stream, here)
        updates, begun = self._ahead
        # Those given before are let go: the stream that makes new ones in their place waits for their use.
        self._rows, there = begun()
        self._updates, self._ahead = updates, self._begin(updates.stop, stream, here)
        here.wait_event(there)

    def _begin(self, first: int, stream: torch.cuda.Stream, here: torch.cuda.Stream) -> tuple[range, Begun]:
        """Start making the inputs of updates on `stream`, after all that `here` has been given."""
        updates = self._from(first)
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            rows = self._empty(len(updates))
            self._draw_into(rows, updates)

        def make() -> tuple[Tensor, torch.cuda.Event]:
            with torch.cuda.stream(stream):
                self._pick_into(rows, updates)
                return rows, stream.record_event()

        if self._resident:
            made = make()
            return updates, lambda: made
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
        return updates, self._thread.submit(make).result

    def _from(self, first: int) -> range:
        """This update, and those that are made with it."""
        return range(first, first + max(1, min(_UPDATES, _BYTES // self._layout.size)))

    def _empty(self, updates: int) -> Tensor:
        return torch.empty(updates, self._layout.size, dtype=torch.uint8, device=self._device)

    def _draw_into(self, rows: Tensor, updates: range) -> None:
        for row, update in zip(rows, updates, strict=True):
            # Seeds of neighbouring steps and of other uses must not meet: SeedSequence mixes them.
            self._noise.manual_seed(int(np.random.SeedSequence([self._seed, 2, update]).generate_state(1)[0]))
            # Always of the whole batch: which rows a process or a part takes must not change what is drawn.
            for place in self._layout.noise(row):
                torch.randn(place.shape, generator=self._noise, out=place)

    def _pick_into(self, rows: Tensor, updates: range) -> None:
        orders = [np.stack(self._order.at(update)) for update in updates]
        picked, flips = np.concatenate([order[:, part] for order in orders for part in self._slices], axis=1)
        self._layout.put(rows, self._trainable.pick(picked, flips))

    @cached_property
    def _one(self) -> tuple[Tensor, ...]:
        """An image as it is picked."""
        rows, flips = self._order.at(0)
        return self._trainable.pick(rows[:1], flips[:1])

    @cached_property
    def _layout(self) -> Layout:
        return Layout(self._one, self._trainable.noise_shapes(), self._batch, self._slices)

    @cached_property
    def _resident(self) -> bool:
        return all(tensor.is_cuda for tensor in self._one)
