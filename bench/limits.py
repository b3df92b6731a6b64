"""What the machine could do at best, and how far a step is from it: operations and bytes counted, limits measured.

Limits are measured in the run that uses them: the rate of a large fp32 matrix product, and of copying 512 MB. A step is
then held against a floor: for every operation that PyTorch dispatches, the longer of its arithmetic at the first rate
and its bytes (all it reads and writes, once) at the second, added up. No eager step can be faster where its tensors do
not fit the caches; one that is compiled can, by not writing what the next operation reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.results import table

SIDE, COPIED = 2048, 512 * 2**20


def wait(device: torch.device) -> None:
    """Until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def fastest(work: Callable[[], object], device: torch.device, times: int = 5) -> float:
    """Seconds of the fastest of `times`, after one to warm up."""
    taken = []
    for _ in range(times + 1):
        start = time.perf_counter()
        work()
        wait(device)
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


@dataclass(frozen=True)
class Limits:
    """operations: fp32 multiplications and additions a second. bytes: read and written a second."""

    operations: float
    bytes: float

    @classmethod
    def measured(cls, device: torch.device) -> Limits:
        """Of this device with the threads that are set, in fp32 (on a GPU without TF32)."""
        a, b = (torch.rand(SIDE, SIDE, device=device) for _ in range(2))
        source = torch.ones(COPIED // 4, device=device)
        target = torch.empty_like(source)
        product = fastest(lambda: torch.mm(a, b), device)
        copy = fastest(lambda: target.copy_(source), device)
        return cls(2 * SIDE**3 / product, 2 * COPIED / copy)

    def text(self) -> str:
        """In words."""
        return (
            f"Limits measured in this run: {self.operations / 1e9:,.0f} Gflop/s (a matrix product of {SIDE}^3, fp32), "
            f"{self.bytes / 1e9:,.1f} GB/s (a copy of {COPIED >> 20} MiB, both ways)."
        )


class Counted(TorchDispatchMode):
    """A context that counts what every operation in it computes, reads and writes."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits, self.operations, self.bytes, self.floor_s = limits, 0.0, 0.0, 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do it, and count it."""
        out = func(*args, **(kwargs or {}))
        read, written = list(_tensors((args, kwargs))), list(_tensors(out))
        if not func._schema.is_mutable:  # a view reads and writes nothing
            storages = {tensor.untyped_storage().data_ptr() for tensor in read}
            if written and all(tensor.untyped_storage().data_ptr() in storages for tensor in written):
                return out
        if "empty" in func._schema.name:  # memory is set aside, and not touched
            return out
        count = flop_registry.get(func._overloadpacket)
        operations = float(count(*args, **(kwargs or {}), out_val=out)) if count else 0.0
        size = float(sum(tensor.numel() * tensor.element_size() for tensor in (*read, *written)))
        self.operations += operations
        self.bytes += size
        self.floor_s += max(operations / self.limits.operations, size / self.limits.bytes)
        return out


def _tensors(tree: Any) -> Iterable[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _tensors(value)
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))


def against_limits(step: Callable[[], object], images: int, rate: float, limits: Limits) -> str:
    """A step of so many images, at this measured rate (images a second), beside what the machine allows."""
    with Counted(limits) as counted:
        step()
    seconds = images / rate
    return (
        f"A step of {images} images: {counted.operations / 1e9:,.1f} Gflop in convolutions and matrix products, "
        f"{counted.bytes / 1e9:,.2f} GB read and written; the floor of its operations one by one is "
        f"{1000 * counted.floor_s:,.0f} ms (arithmetic alone {1000 * counted.operations / limits.operations:,.0f} ms, "
        f"bytes alone {1000 * counted.bytes / limits.bytes:,.0f} ms). It takes {1000 * seconds:,.0f} ms: "
        f"{counted.floor_s / seconds:.0%} of that limit."
    )


def where_time_goes(step: Callable[[], object], device: torch.device, steps: int = 3, rows: int = 12) -> str:
    """A table of the operations that take longest, by PyTorch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    step()
    gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * gpu) as recorded:
        for _ in range(steps):
            step()
        wait(device)
    name = "self_device_time_total" if gpu else "self_cpu_time_total"
    found = sorted(((float(getattr(e, name)), e) for e in recorded.key_averages()), key=lambda pair: -pair[0])
    whole = sum(taken for taken, _ in found)
    lines: list[list[object]] = [
        [event.key, taken / steps / 1000, f"{taken / whole:.1%}", event.count // steps] for taken, event in found[:rows]
    ]
    return table(["operation", "ms a step", "share", "calls"], lines)
