"""Burt's operators compiled for the processor that runs them, with Numba: the same bits as pyramid/filters.py, faster.

For fp32 images on a processor, where no gradient or graph of the computation is wanted. Each plane of an image is
worked on by itself, while it is in a core's cache. Without Numba nothing is served, and filters.py does the work.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

# Fewer bytes of finest images are not worth starting a thread.
_SHARE_BYTES = 1 << 23


def serves(*images: Tensor) -> bool:
    """Whether these, B C H W, are work for this module."""
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and any(x.requires_grad for x in images)):
        return False
    return all(x.device.type == "cpu" and x.dtype == torch.float32 for x in images) and _kernels() is not None


def reduce(x: Tensor) -> Tensor:
    """Halve, B C H W -> B C H/2 W/2."""
    *front, height, width = x.shape
    out = x.new_empty((*front, height // 2, width // 2))
    _run("reduce_planes", x, out)
    return out


def expand(x: Tensor) -> Tensor:
    """Double, B C H W -> B C 2H 2W."""
    *front, height, width = x.shape
    out = x.new_empty((*front, 2 * height, 2 * width))
    _run("add_expanded_planes", x, torch.zeros_like(out), out)  # onto itself would be slower: nothing could be vectors
    return out


def band(fine: Tensor, coarse: Tensor) -> Tensor:
    """fine - expand(coarse), B C 2H 2W."""
    out = torch.empty_like(fine, memory_format=torch.contiguous_format)
    _run("subtract_expanded_planes", coarse, fine, out)
    return out


def rebuild(band: Tensor, coarse: Tensor) -> Tensor:
    """band + expand(coarse), B C 2H 2W."""
    out = torch.empty_like(band, memory_format=torch.contiguous_format)
    _run("add_expanded_planes", coarse, band, out)
    return out


@cache
def _kernels() -> ModuleType | None:
    try:
        from lapcvae.pyramid import kernels
    except (ImportError, RuntimeError):  # no Numba; or no folder where it may keep what it compiled
        return None
    return kernels


def _run(name: str, *images: Tensor) -> None:
    """Run a kernel over all planes, a share of them a thread."""
    kernel: Callable[..., None] = getattr(_kernels(), name)
    planes = [x.detach().contiguous().flatten(0, -3).numpy() for x in images]
    count = len(planes[0])
    bytes_ = max(p.nbytes for p in planes)
    threads = max(1, min(torch.get_num_threads(), count, bytes_ // _SHARE_BYTES))
    if threads == 1:
        kernel(*planes)
        return
    shares = [slice(count * i // threads, count * (i + 1) // threads) for i in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda share: kernel(*(p[share] for p in planes)), shares))
