"""Keeps the C library from giving memory back to the system amid work on tensors on a processor.

By default glibc maps every large tensor anew and unmaps it when it is freed, so that the system clears tens of
thousands of pages time and again, by one thread while the others wait. With one free list instead they stay with the
process.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Of malloc.h: how many blocks may be mapped by themselves, from which size on, and how much may lie free at the top.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_MAPPED, _MAPPED_FROM_BYTES, _FREE_BYTES = 65536, 32 << 20, 64 << 20


@contextmanager
def held_memory(device: torch.device) -> Iterator[None]:
    """A context in which freed memory stays with the process; on a GPU, or without glibc, one that does nothing.

    Afterwards what is free goes back to the system, and large blocks are mapped again.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    library.mallopt(_M_MMAP_MAX, 0)
    library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        # The sizes that glibc itself arrives at where large blocks come and go; its first ones would be smaller.
        for name, value in (
            (_M_MMAP_MAX, _MAPPED),
            (_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES),
            (_M_TRIM_THRESHOLD, _FREE_BYTES),
        ):
            library.mallopt(name, value)
        library.malloc_trim(0)
