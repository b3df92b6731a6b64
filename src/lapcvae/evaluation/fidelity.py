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


def spread(values: np.ndarray) -> dict[str, float]:
    """Mean and standard deviation over images."""
    return {"mean": float(values.mean()), "std": float(values.std())}


def rmse_summary(values: np.ndarray) -> dict[str, float]:
    """Mean and standard deviation of per-image roots, and the root of the mean square: the two are not equal."""
    return {**spread(values), "root_of_mean": float(np.sqrt(np.mean(np.square(values))))}


def _pixels(x: Tensor) -> np.ndarray:
    clipped: np.ndarray = x.clamp(0, 1).permute(0, 2, 3, 1).to(torch.float64).cpu().numpy()
    return clipped
