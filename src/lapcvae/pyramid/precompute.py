"""Gaussian levels of a whole data set as packed arrays, and the per-level statistics that networks normalise with.

Files: x1.npy, N S S 3 uint8 (the photographs; a flipped one is flipped on reading), and for k > 1 xk.npy, N 2 s s 3
fp16 in [0, 1], where axis 1 is the orientation (0 as is, 1 mirrored): reducing does not commute with mirroring, so a
mirrored face has coarse levels of its own.

A band is the difference of a stored level and the stored next one, expanded, so collapsing is exact whatever fp16
rounded away.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lapcvae.errors import DataError
from lapcvae.io.progress import progress
from lapcvae.pyramid.filters import PyramidKind, expand, reduce

_CHUNK = 256


def precompute(images: np.ndarray, training: np.ndarray, sides: list[int], kind: PyramidKind, folder: Path) -> dict:
    """Write x1.npy ... xK.npy into `folder` and return statistics over the rows where `training` is true.

    images: N S S 3 uint8. training: N bool. Statistics, per level, on the [0, 1] scale: `mean` and `std` of x_k (per
    channel), `band_std` of h_k (one number; at level K that of x_K around its mean).
    Raises `DataError` when there is nothing to train on.
    """
    if not training.any():
        raise DataError("no accepted photograph is in the training split; add photographs or change `split`")
    count = len(images)
    levels = len(sides)
    out = [_new(folder / "x1.npy", (count, sides[0], sides[0], 3), np.uint8)]
    out += [_new(folder / f"x{k}.npy", (count, 2, s, s, 3), np.float16) for k, s in enumerate(sides[1:], 2)]
    moments = [_Moments() for _ in range(levels)]
    bands = [_Moments() for _ in range(levels)]
    bar = progress(total=count, label="pyramid", unit="image")
    for start in range(0, count, _CHUNK):
        rows = slice(start, min(start + _CHUNK, count))
        out[0][rows] = images[rows]
        used = torch.from_numpy(training[rows])
        for flip in (0, 1):
            x = torch.from_numpy(np.array(images[rows])).permute(0, 3, 1, 2).float() / 255
            x = x.flip(-1) if flip else x
            for k in range(levels):
                moments[k].add(x[used])
                if k + 1 == levels:
                    break
                coarse = reduce(x, kind).half()
                out[k + 1][rows, flip] = coarse.permute(0, 2, 3, 1).numpy()
                coarse = coarse.float()
                bands[k].add((x - expand(coarse, kind))[used])
                x = coarse
        bar.update(rows.stop - rows.start)
    bar.close()
    for array in out:
        array.flush()
    bands[-1] = moments[-1]
    return {
        str(k + 1): {
            "side": side,
            "mean": moments[k].mean,
            "std": moments[k].std,
            "band_std": float(np.sqrt(np.mean(np.square(bands[k].std)))),
        }
        for k, side in enumerate(sides)
    }


def _new(path: Path, shape: tuple[int, ...], dtype: Any) -> np.memmap:
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


class _Moments:
    """Running sums per channel in float64."""

    def __init__(self) -> None:
        self._count = 0
        self._sum = np.zeros(3)
        self._squares = np.zeros(3)

    def add(self, x: torch.Tensor) -> None:
        values = x.double()
        self._count += x.shape[0] * x.shape[2] * x.shape[3]
        self._sum += values.sum((0, 2, 3)).numpy()
        self._squares += values.square().sum((0, 2, 3)).numpy()

    @property
    def mean(self) -> list[float]:
        return [float(v) for v in self._sum / self._count]

    @property
    def std(self) -> list[float]:
        mean = self._sum / self._count
        return [float(v) for v in np.sqrt(np.maximum(self._squares / self._count - mean**2, 1e-12))]
