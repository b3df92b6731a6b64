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

from lapcvae.training.feed import Batch

# Updates before the capture, in which libraries choose their kernels and the compiler compiles.
_WARM = 3


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
    """`compute` with its inputs at fixed places, captured after the first few calls, which are updates like any other.

    compute: works on the device alone, never waits for it, and changes tensors in place. Where the device is not a GPU
    nothing is captured. required: a capture that fails is an error; otherwise it is said, and each operation is
    launched by itself.
    """

    def __init__(self, compute: Compute, device: torch.device, required: bool) -> None:
        self._compute, self._required = compute, required
        self._inputs: list[Batch] = []
        self._places: list[Tensor] = []
        self._numbers = torch.zeros(3, device=device)
        self._moment = Moment(*self._numbers.unbind())
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._taken: torch.cuda.Event | None = None
        self._captures = self._stream is not None
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batches: list[Batch], moment: Moment) -> None:
        """One update."""
        self._take(batches, moment)
        if self._graph is None and self._captures and self._stream is not None:
            self._calls += 1
            if self._calls <= _WARM:
                self._apart(self._stream)
                return
            self._capture(self._stream)
        if self._graph is None:
            self._compute(self._inputs, self._moment)
        else:
            self._graph.replay()

    def _take(self, batches: list[Batch], moment: Moment) -> None:
        numbers = torch.tensor([moment.update, moment.learning_rate, moment.share], dtype=torch.float32)
        if self._stream is not None:
            numbers = self._sent(numbers, self._stream)
        if not self._inputs:
            self._inputs = [(_copies(packed), _copies(noise)) for packed, noise in batches]
            self._places = _bytes([*self._inputs, ((self._numbers,), ())])
        # As bytes, so that all of them are one kernel: what a replay waits for is time in which the GPU does nothing.
        torch._foreach_copy_(self._places, _bytes([*batches, ((numbers,), ())]))
        if self._stream is not None:
            self._taken = torch.cuda.current_stream(self._stream.device).record_event()

    def _sent(self, numbers: Tensor, stream: torch.cuda.Stream) -> Tensor:
        """The numbers on the device: brought there while the update before is computed."""
        if self._taken is not None:
            stream.wait_event(self._taken)  # those sent before have been read, and new ones may lie in their place
        with torch.cuda.stream(stream):
            sent = numbers.pin_memory().to(stream.device, non_blocking=True)
        torch.cuda.current_stream(stream.device).wait_stream(stream)
        return sent

    def _apart(self, stream: torch.cuda.Stream) -> None:
        """On the stream of the capture, where autograd then has no ties to any other."""
        here = torch.cuda.current_stream(stream.device)
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            self._compute(self._inputs, self._moment)
        here.wait_stream(stream)

    def _capture(self, stream: torch.cuda.Stream) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may go on meanwhile: the feed's makes page-locked memory.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self._compute(self._inputs, self._moment)
        except RuntimeError as error:
            if self._required:
                raise
            self._captures = False
            print(f"warning: updates are not replayed as a graph ({str(error).splitlines()[0]})", file=sys.stderr)
        else:
            self._graph = graph


def _bytes(batches: list[Batch]) -> list[Tensor]:
    return [tensor.view(torch.uint8) for packed, noise in batches for tensor in (*packed, *noise)]


def _copies(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.clone() for tensor in tensors)
