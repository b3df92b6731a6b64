"""How much detail a picture has beside a photograph: its sharpness, and the energy of its Laplacian bands.

Images are B 3 S S on [0, 1]; pictures are clipped to that range first. Every model is measured with the same bands,
whatever its own pyramid: Burt and Adelson's, from the full side down to `COARSEST_PX`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lapcvae.pyramid.laplacian import build

COARSEST_PX = 8  # what is left below this is the face's colour and light, not detail
_LEAST = 1e-6  # of a photograph without any detail
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as OpenCV


def sharpness(x: Tensor) -> np.ndarray:
    """Variance of the Laplacian of the grey values (0-255) of each image, B float64."""
    weights = torch.tensor(_GREY, dtype=torch.float64, device=x.device).view(1, 3, 1, 1)
    grey = (x.clamp(0, 1).double() * 255 * weights).sum(1)
    inner = grey[:, 1:-1, 1:-1]
    edges = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * inner
    return edges.flatten(1).var(1, correction=0).cpu().numpy()


def band_sides(side: int) -> list[int]:
    """Sides in px of the bands of an image of `side` px, finest first: 64, 32, 16 for 64."""
    sides = []
    while side % 2 == 0 and side // 2 >= COARSEST_PX:
        sides.append(side)
        side //= 2
    return sides


def band_energies(x: Tensor) -> dict[str, np.ndarray]:
    """Mean square of each Laplacian band (0-255 scale) by its side, such as `px64`; each B float64."""
    sides = band_sides(x.shape[-1])
    bands = build(x.clamp(0, 1).double() * 255, len(sides) + 1)[:-1]
    return {f"px{side}": band.square().mean((1, 2, 3)).cpu().numpy() for side, band in zip(sides, bands, strict=True)}


def ratios(picture: Tensor, photograph: Tensor) -> dict[str, np.ndarray]:
    """`sharpness_ratio`, and `band_px64` ... the ratio of energies a band, of pictures to photographs; each B float64.

    1 is a picture as sharp as its photograph.
    """
    found, wanted = band_energies(picture), band_energies(photograph)
    bands = {f"band_{name}": found[name] / np.maximum(wanted[name], _LEAST) for name in wanted}
    return {"sharpness_ratio": sharpness(picture) / np.maximum(sharpness(photograph), _LEAST), **bands}


def set_ratios(pictures: Tensor, photographs: Tensor) -> dict[str, Any]:
    """The same of two sets that are not paired: mean sharpness and energies of one over those of the other."""
    found, wanted = band_energies(pictures), band_energies(photographs)
    return {
        "sharpness_ratio": float(sharpness(pictures).mean() / max(sharpness(photographs).mean(), _LEAST)),
        "band_energy_ratio": {name: float(found[name].mean() / max(wanted[name].mean(), _LEAST)) for name in wanted},
    }
