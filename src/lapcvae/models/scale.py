"""From the pyramid's statistics to the fixed numbers a level normalises with."""

from __future__ import annotations

from typing import Any

from lapcvae.models.level import LevelScale
from lapcvae.pyramid import haar
from lapcvae.pyramid.filters import PyramidKind

ZERO = (0.0, 0.0, 0.0)


def scale_of(statistics: dict[str, Any], k: int, depth: int, kind: PyramidKind = "burt") -> LevelScale:
    """Scale of level k of `depth`; `statistics` maps level numbers to mean, std and band_std on the [0, 1] scale."""
    own = statistics[str(k)]
    image_mean, image_std = _three(own["mean"]), float(sum(own["std"]) / 3)
    gain = haar.gain(k) if kind == "haar" else 1.0
    if k == depth:
        return LevelScale(image_mean, float(own["band_std"]), image_mean, image_std, gain=gain)
    coarse = statistics[str(k + 1)]
    coarse_mean = _three(coarse["mean"]) if k + 1 == depth else ZERO
    return LevelScale(ZERO, float(own["band_std"]), image_mean, image_std, coarse_mean, float(coarse["band_std"]), gain)


def half_scale() -> LevelScale:
    """The scale that maps [0, 1] to [-1, 1], for a decoder that ends in tanh."""
    half = (0.5, 0.5, 0.5)
    return LevelScale(half, 0.5, half, 0.5)


def _three(values: list[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)
