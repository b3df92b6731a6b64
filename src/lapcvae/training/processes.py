"""The processes that train one thing together: one by default, several under `torchrun`.

Alone, nothing but torch is needed. Several processes go through Accelerate (the extra `distributed`): it reads what
torchrun says, picks each process its GPU, starts the process group and wraps the network in DDP. It was chosen over
Lightning Fabric by measurement (two CPU cores, median of three): 0.2 s to import against 3.3 s, 2.2 s from import to
a wrapped network in two processes against 4.0 s; both are kept well, and Fabric refuses frozen dataclasses in a
forward. Neither is imported where there is one process, so the core trains without them.
"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lapcvae.errors import ConfigError
from lapcvae.models.batch_norm import batch_norms


def over_processes(values: Tensor, keep: bool = False) -> Tensor:
    """`values` as they are where there is one process; where there are several, their mean over all, without gradient.

    The mean is one number, or with `keep` each value's own. For statistics of the whole batch: every process has the
    same number of images, so the mean of means is the mean.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return values
    mean = values.detach().clone() if keep else values.detach().mean()
    dist.all_reduce(mean)
    return mean / dist.get_world_size()


class Processes:
    """This process among those of one training. By itself it is one process on one device."""

    rank, count = 0, 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and says things."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module to call in place of `module` so that gradients are averaged over processes."""
        return module

    def apart(self, module: nn.Module) -> AbstractContextManager[Any]:
        """Within it a backward pass leaves gradients unaveraged: for all parts of a batch but the last."""
        return nullcontext()

    def any(self, flag: Tensor) -> Tensor:
        """The largest of every process's `flag` (any shape)."""
        return flag

    def same(self, value: Any) -> Any:
        """The first process's `value`, plain data, in every process."""
        return value

    def close(self) -> None:
        """Leave the group; only the first process goes on."""


class SeveralProcesses(Processes):
    """One of several processes under torchrun, on its own GPU or on the processor."""

    def __init__(self) -> None:
        try:
            from accelerate import Accelerator
        except ImportError:
            raise ConfigError(
                "training in several processes needs the package `accelerate`; install the extra `distributed`, or "
                "train in one process"
            ) from None
        own, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if 0 < gpus <= own:
            raise ConfigError(
                f"this machine has {gpus} GPU(s), too few for its process {own + 1}; start one process a GPU"
            )
        self._accelerator = Accelerator(cpu=not torch.cuda.is_available())
        super().__init__(self._accelerator.device)
        self.rank, self.count = self._accelerator.process_index, self._accelerator.num_processes

    def wrap(self, module: nn.Module) -> nn.Module:
        """DDP around the module; batch norm sees the whole batch on GPUs."""
        if self.device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        elif self.first and batch_norms(module):
            # PyTorch's batch norm across processes exists for GPUs only.
            print(
                "warning: batch norm sees each process's images only, so results differ from those of one process; "
                "use `network: residual`, or one process",
                file=sys.stderr,
            )
        wrapped: nn.Module = self._accelerator.prepare_model(module)
        return wrapped

    def apart(self, module: nn.Module) -> AbstractContextManager[Any]:
        """DDP's `no_sync`."""
        unsynced: AbstractContextManager[Any] = self._accelerator.no_sync(module)
        return unsynced

    def any(self, flag: Tensor) -> Tensor:
        """The largest of every process's `flag` (any shape)."""
        flag = flag.clone()
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return flag

    def same(self, value: Any) -> Any:
        """The first process's `value`, plain data, in every process."""
        box = [value]
        dist.broadcast_object_list(box, device=self.device if self.device.type == "cuda" else None)
        return box[0]

    def close(self) -> None:
        """Leave the group; only the first process goes on."""
        dist.barrier()
        dist.destroy_process_group()


def these_processes() -> Processes:
    """Several processes where torchrun started this one beside others, else one on the GPU, else on the processor."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return SeveralProcesses()
    return Processes(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
