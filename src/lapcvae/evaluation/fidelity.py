"""How close reconstructions are to the photographs, image by image.

Images are B 3 S S on [0, 1]; reconstructions are clipped to that range first, as any picture that is shown would be.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def rmse(x: Tensor, rebuilt: Tensor) -> np.ndarray:
    """sqrt(MSE) of each image on the 0-255 scale, B float64."""
    error = (rebuilt.clamp(0, 1).double() - x.double()) * 255
    return error.square().mean((1, 2, 3)).sqrt().cpu().numpy()


def psnr_db(rmse_255: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in decibels from sqrt(MSE) on the 0-255 scale."""
    return 20 * np.log10(255 / np.maximum(rmse_255, 1e-6))


def ssim(x: Tensor, rebuilt: Tensor) -> np.ndarray:
    """Structural similarity of each image, at most 1, as Wang et al. (2004): Gaussian window of sigma 1.5."""
    from skimage.metrics import structural_similarity

    pairs = zip(_pixels(x), _pixels(rebuilt), strict=True)
    return np.array(
        [
            structural_similarity(
                a, b, channel_axis=2, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
            for a, b in pairs
        ]
    )


# Weights of the scales from fine to coarse, Wang, Simoncelli and Bovik (2003).
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW_PX = 11
_AT_ONCE = 16  # images: the measure holds dozens of copies of them


def ms_ssim_scales(side: int) -> int:
    """How many of the five scales an image of `side` px has: its smallest copy must hold the window of 11 px."""
    scales = 1
    while scales < len(_SCALE_WEIGHTS) and side // 2**scales >= _WINDOW_PX and side // scales**2 >= _WINDOW_PX:
        scales += 1
    return scales


def ms_ssim(x: Tensor, rebuilt: Tensor) -> np.ndarray:
    """Multi-scale structural similarity of each image, at most 1 (Wang et al. 2003), B float64.

    Small images have fewer than the five published scales, see `ms_ssim_scales`: the weights of those they have are
    scaled to sum to 1. Negative similarities count as 0.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    weights = _SCALE_WEIGHTS[: ms_ssim_scales(x.shape[-1])]
    betas = tuple(w / sum(weights) for w in weights)
    pairs = zip(rebuilt.clamp(0, 1).float().split(_AT_ONCE), x.float().split(_AT_ONCE), strict=True)
    values = [
        multiscale_structural_similarity_index_measure(
            a, b, kernel_size=_WINDOW_PX, sigma=1.5, data_range=1.0, betas=betas, reduction=None, normalize="relu"
        ).reshape(len(a))
        for a, b in pairs
    ]
    return torch.cat(values).double().cpu().numpy()


def spread(values: np.ndarray) -> dict[str, float]:
    """Mean and standard deviation over images."""
    return {"mean": float(values.mean()), "std": float(values.std())}


def rmse_summary(values: np.ndarray) -> dict[str, float]:
    """Mean and standard deviation of per-image roots, and the root of the mean square: the two are not equal."""
    return {**spread(values), "root_of_mean": float(np.sqrt(np.mean(np.square(values))))}


def _pixels(x: Tensor) -> np.ndarray:
    clipped: np.ndarray = x.clamp(0, 1).permute(0, 2, 3, 1).to(torch.float64).cpu().numpy()
    return clipped
