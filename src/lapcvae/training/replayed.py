"""An update that a GPU replays as one CUDA graph, so that it need not wait for the processor to launch each kernel.

Networks this small are some hundred kernels an update of a few microseconds each: launched one by one from Python they
leave a GPU idle most of the time. A graph is launched once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lapcvae.training.layout import Batch, Inputs

# Updates before the capture, in which libraries choose their kernels and the compiler compiles.
_WARM = 3
# Updates whose moments are sent to the device together.
_SENT = 64


@dataclass(frozen=True)
class Moment:
    """What differs from update to update beside the batch.

    update: counted from 0. learning_rate. share: of the weight average that is this update's weights. Each is a number,
    or a 0-d fp32 tensor on the device where an update is replayed: a number would stand in the graph for good.
    """

    update: int | Tensor
    learning_rate: float | Tensor
    share: float | Tensor


Compute = Callable[[list[Batch], Moment], None]


class Replayed:
    """`compute` with its inputs at a fixed place, captured after the first few calls, which are updates like any other.

    compute: works on the device alone, never waits for it, and changes tensors in place. moment_at: an update's moment,
    asked for ahead; once it answers otherwise, `forget` has to be called. Where the device is not a GPU nothing is
    captured. required: a capture that fails is an error; otherwise it is said, and each operation is launched by
    itself.
    """

    def __init__(
        self, compute: Compute, moment_at: Callable[[int], Moment], device: torch.device, required: bool
    ) -> None:
        self._compute, self._moment_at, self._device, self._required = compute, moment_at, device, required
        self._place: Inputs | None = None
        self._numbers = torch.zeros(3, device=device)
        self._moment = Moment(*self._numbers.unbind())
        self._updates, self._sent = range(0), torch.empty(0)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._captures = self._stream is not None
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, inputs: Inputs, update: int) -> None:
        """One update."""
        if self._place is None:
            self._place = Inputs(inputs.row.clone(), inputs.layout)
        # Two copies within the device: what a replay waits for is time in which the GPU computes nothing.
        self._place.row.copy_(inputs.row)
        self._numbers.copy_(self._numbers_of(update))
        batches = self._place.batches() if self._graph is None else []
        if self._graph is None and self._captures and self._stream is not None:
            self._calls += 1
            if self._calls <= _WARM:
                self._apart(batches, self._stream)
                return
            self._capture(batches, self._stream)
        if self._graph is None:
            self._compute(batches, self._moment)
        else:
            self._graph.replay()

    def forget(self) -> None:
        """Ask for moments anew."""
        self._updates = range(0)

    def _numbers_of(self, update: int) -> Tensor:
        """An update's moment on the device: 3 fp32."""
        if update not in self._updates:
            self._updates = range(update, update + _SENT)
            moments = map(self._moment_at, self._updates)
            numbers = torch.tensor([(m.update, m.learning_rate, m.share) for m in moments], dtype=torch.float32)
            self._sent = (numbers if self._stream is None else numbers.pin_memory()).to(self._device, non_blocking=True)
        return self._sent[update - self._updates.start]

    def _apart(self, batches: list[Batch], stream: torch.cuda.Stream) -> None:
        """On the stream of the capture, where autograd then has no ties to any other."""
        here = torch.cuda.current_stream(stream.device)
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            self._compute(batches, self._moment)
        here.wait_stream(stream)

    def _capture(self, batches: list[Batch], stream: torch.cuda.Stream) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may go on meanwhile: the feed's makes page-locked memory.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self._compute(batches, self._moment)
        except RuntimeError as error:
            if self._required:
                raise
            self._captures = False
            print(f"warning: updates are not replayed as a graph ({str(error).splitlines()[0]})", file=sys.stderr)
        else:
            self._graph = graph
