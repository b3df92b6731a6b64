"""What a GPU would gain if all of an update were one replayed graph: an experiment beside the loop, not the loop.

The loop replays the forward and the backward pass. Clipping, the guard, AdamW, the weight average and the sums are
launched one by one, and where networks are small the GPU waits for them. Here the same work is captured whole; only
picking rows and drawing noise stay outside.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from bench.limits import wait
from lapcvae.data.batches import BatchOrder
from lapcvae.training.feed import Batch, Feed
from lapcvae.training.processes import Processes
from lapcvae.training.trainable import LevelTraining

_WARM = 3  # updates before the capture, in which libraries choose their kernels


class WholeUpdate:
    """An update as a function of tensors that stay where they are, so that a graph of it can be replayed."""

    def __init__(
        self, trainable: LevelTraining, first: Batch, device: torch.device, bf16: bool, compiled: bool
    ) -> None:
        trainable.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if compiled:
            trainable.compile()
        self._trainable = trainable.train()
        self._packed, self._noise = (tuple(tensor.clone() for tensor in part) for part in first)
        self._parameters = [p for p in trainable.parameters() if p.requires_grad]
        self._average = [p.detach().clone() for p in self._parameters]
        self._rate = torch.tensor(1e-3, device=device)
        self._adam = torch.optim.AdamW(self._parameters, lr=self._rate, fused=True, capturable=device.type == "cuda")
        self._autocast = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
        self.sums = torch.zeros(4, device=device)  # accepted updates, rate, distortion, norm of the gradient
        self._graph: torch.cuda.CUDAGraph | None = None

    def _compute(self) -> None:
        with self._autocast:
            terms = self._trainable(self._packed, self._noise)
        loss = self._trainable.losses(terms, 0)["model"]
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        sound = loss.detach().isfinite() & norm.isfinite()
        self._adam.found_inf = 1.0 - sound.float()  # type: ignore[attr-defined] # as PyTorch's own GradScaler does
        self._adam.step()
        torch._foreach_lerp_(self._average, [p.detach() for p in self._parameters], 0.01)
        taken = torch.stack([torch.ones_like(norm), terms["rate_nats"], terms["distortion_nats"], norm]).detach()
        self.sums += torch.where(sound, taken, 0.0)

    def capture(self) -> None:
        """From now on replay. Weights have moved by a few updates afterwards."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM):
                self._compute()
                self._adam.zero_grad(set_to_none=True)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._compute()
        self.sums.zero_()

    def __call__(self, batch: Batch) -> None:
        """One update."""
        for mine, new in zip((*self._packed, *self._noise), (*batch[0], *batch[1]), strict=True):
            mine.copy_(new)
        if self._graph is not None:
            self._graph.replay()
        else:
            self._compute()
            self._adam.zero_grad(set_to_none=True)


def whole_update_rate(
    trainable: LevelTraining, rows: np.ndarray, batch: int, updates: int, device: torch.device, graph: bool
) -> tuple[float, list[float]]:
    """Images a second, and the means of rate, distortion (nats) and gradient norm over the timed two thirds.

    graph: compiled, and captured whole; otherwise each operation by itself. Both see the same batches and noise.
    """
    feed = Feed(trainable, BatchOrder(rows, batch, 0), 0, Processes(device), batch, 1)
    update = WholeUpdate(trainable, feed.batches(0)[0], device, device.type == "cuda", graph)
    if graph:
        update.capture()
    start = 0.0
    for step in range(updates):
        if step == updates // 3:
            wait(device)
            update.sums.zero_()
            start = time.perf_counter()
        update(feed.batches(step)[0])
    wait(device)
    rate = (updates - updates // 3) * batch / (time.perf_counter() - start)
    return rate, (update.sums[1:] / update.sums[0]).tolist()
