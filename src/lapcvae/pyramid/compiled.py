"""Burt's operators compiled for the processor that runs them, with Numba: the same bits as pyramid/filters.py, faster.

For fp32 images on a processor, where no gradient or graph of the computation is wanted. Each plane of an image is
worked on by itself, while it is in a core's cache. Without Numba nothing is served, and filters.py does the work.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
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
    _share(_kernels().reduce_planes, _planes(x), _planes(out))
    return out


def expand(x: Tensor) -> Tensor:
    """Double, B C H W -> B C 2H 2W."""
    *front, height, width = x.shape
    return rebuild(x.new_zeros((*front, 2 * height, 2 * width)), x)


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """`reduce` of x, and the `band` that it lacks."""
    *front, height, width = x.shape
    coarse = x.new_empty((*front, height // 2, width // 2))
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    _share(_kernels().split_planes, _planes(x), _planes(coarse), _planes(out))
    return coarse, out


def band(fine: Tensor, coarse: Tensor) -> Tensor:
    """fine - expand(coarse), B C 2H 2W."""
    return _onto(fine, coarse, -1)


def rebuild(band: Tensor, coarse: Tensor) -> Tensor:
    """band + expand(coarse), B C 2H 2W."""
    return _onto(band, coarse, 1)


@cache
def _kernels() -> Any:
    """The module of them; None where it cannot be had."""
    try:
        from lapcvae.pyramid import kernels
    except (ImportError, RuntimeError):  # no Numba; or no folder where it may keep what it compiled
        return None
    return kernels


def _onto(onto: Tensor, coarse: Tensor, sign: int) -> Tensor:
    out = torch.empty_like(onto, memory_format=torch.contiguous_format)
    kernel = _kernels().expand_planes
    _share(lambda x, o, to: kernel(x, o, np.float32(sign), to), _planes(coarse), _planes(onto), _planes(out))
    return out


def _planes(images: Tensor) -> np.ndarray:
    return images.detach().contiguous().flatten(0, -3).numpy()


def _share(kernel: Callable[..., None], *planes: np.ndarray) -> None:
    """Run a kernel over all planes, a share of them a thread."""
    count, most = len(planes[0]), max(p.nbytes for p in planes)
    threads = max(1, min(torch.get_num_threads(), count, most // _SHARE_BYTES))
    if threads == 1:
        kernel(*planes)
        return
    shares = [slice(count * i // threads, count * (i + 1) // threads) for i in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda share: kernel(*(p[share] for p in planes)), shares))
