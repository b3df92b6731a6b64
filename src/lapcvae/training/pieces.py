"""Tensors in pieces, for kernels that work on many tensors at once.

PyTorch's give 65,536 numbers of a tensor to one of a GPU's processors: a network of a million weights keeps some 16 of
them busy. What comes out is what whole tensors give.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Small enough that a network of a million weights is work for every processor; a kernel takes some 40 pieces at most.
NUMBERS = 8_192


def in_pieces(*columns: list[Tensor]) -> list[list[Tensor]]:
    """Lists of tensors as lists of pieces where a graph is being captured; as they are where none is.

    Outside of a graph pieces would take the processor longer to launch than they save.
    """
    if columns[0][0].is_cuda and torch.cuda.is_current_stream_capturing():
        return cut(*columns)
    return list(columns)


def cut(*columns: list[Tensor]) -> list[list[Tensor]]:
    """Lists of tensors as lists of 1-D views of at most `NUMBERS` numbers, in the order of memory.

    The tensors of a row (one of each list) are of one shape and layout; a 0-d one beside larger ones is given with each
    of their pieces. Raises `ValueError` for layouts that differ or leave gaps.
    """
    out: list[list[Tensor]] = [[] for _ in columns]
    for row in zip(*columns, strict=True):
        if any(tensor.ndim and _layout(tensor) != _layout(row[0]) for tensor in row):
            raise ValueError(f"these have different layouts: {[(tuple(t.shape), t.stride()) for t in row]}")
        pieces = -(-row[0].numel() // NUMBERS)
        for column, tensor in zip(out, row, strict=True):
            column += tensor.as_strided((tensor.numel(),), (1,)).split(NUMBERS) if tensor.ndim else [tensor] * pieces
    return out


def _layout(tensor: Tensor) -> list[tuple[int, int]]:
    """(axis, size) from the innermost to the outermost, but for axes of one place."""
    axes = sorted((stride, axis) for axis, stride in enumerate(tensor.stride()) if tensor.shape[axis] > 1)
    places = 1
    for stride, axis in axes:
        if stride != places:
            raise ValueError(f"a tensor of {tuple(tensor.shape)} with strides {tensor.stride()} has gaps in memory")
        places *= tensor.shape[axis]
    return [(axis, tensor.shape[axis]) for _, axis in axes]
