"""After training: the level's calibrated sigma, and its rebuilt images as the next level's data set.

Files in the folder: image.npy, x~_k at the posterior mean, N 2 S S 3 fp16 (axis 1: as is, mirrored);
mean.npy, the decoder's mu_k in the same shape; posterior.npy, N 2 2 D fp32 (posterior mean and log std, flattened);
level.json: `log_sigma`; `latent_shape` of z_k; `composed`, whether x~_k is what the composed model rebuilds: not so for
a level trained apart, whose coarser image was the true one. Nothing trains on level 1, so it leaves level.json alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lapcvae.io.atomic import write_json
from lapcvae.io.progress import progress
from lapcvae.models.cascade import run_level
from lapcvae.models.level import LevelCVAE
from lapcvae.pyramid.filters import PyramidKind
from lapcvae.training.arrays import LevelArrays

_CHUNK = 256


@torch.no_grad()
def calibrate_sigma(level: LevelCVAE, arrays: LevelArrays, rows: np.ndarray, kind: PyramidKind, seed: int) -> None:
    """Set sigma_k to the one that maximises the likelihood of the training rows at posterior samples.

    With `sigma: learned` or `fixed` the level's own value is kept.
    """
    if level.settings.sigma != "optimal":
        return
    laplace = level.settings.likelihood == "laplace"
    device = level.log_sigma.device
    noise = torch.Generator(device)
    noise.manual_seed(seed)
    total, count = 0.0, 0
    bar = progress(total=len(rows), label="sigma", unit="image")
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        x, coarser = arrays.gather(part, np.zeros_like(part))
        done = run_level(level, x, coarser, kind, noise)
        error = done.error.double()
        total += float((error.abs() if laplace else error.square()).sum())
        count += error.numel()
        bar.update(len(part))
    bar.close()
    level.log_sigma.fill_((1.0 if laplace else 0.5) * float(np.log(max(total / count, 1e-10))))


@torch.no_grad()
def write_rebuilt(
    level: LevelCVAE, arrays: LevelArrays, kind: PyramidKind, folder: Path, composed: bool = True
) -> None:
    """Write x~_k, mu_k and the posterior of every photograph, both orientations, into an existing folder."""
    write_facts(level, folder, composed)
    count, side = arrays.images.count, level.side
    latents = int(np.prod(level.latent_shape))
    shape = (count, 2, side, side, 3)
    image = np.lib.format.open_memmap(folder / "image.npy", mode="w+", dtype=np.float16, shape=shape)
    mean = np.lib.format.open_memmap(folder / "mean.npy", mode="w+", dtype=np.float16, shape=shape)
    posterior = np.lib.format.open_memmap(
        folder / "posterior.npy", mode="w+", dtype=np.float32, shape=(count, 2, 2, latents)
    )
    bar = progress(total=2 * count, label="rebuild", unit="image")
    for start in range(0, count, _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, count))
        for flip in (0, 1):
            x, coarser = arrays.gather(rows, np.full_like(rows, flip))
            done = run_level(level, x, coarser, kind, None)
            image[rows, flip] = done.rebuilt.permute(0, 2, 3, 1).cpu().numpy()
            mean[rows, flip] = done.mean.permute(0, 2, 3, 1).cpu().numpy()
            posterior[rows, flip, 0] = done.posterior.mean.flatten(1).cpu().numpy()
            posterior[rows, flip, 1] = done.posterior.log_std.flatten(1).cpu().numpy()
            bar.update(len(rows))
    bar.close()
    for array in (image, mean, posterior):
        array.flush()


def write_facts(level: LevelCVAE, folder: Path, composed: bool = True) -> None:
    """Write level.json into an existing folder."""
    facts = {"log_sigma": float(level.log_sigma), "latent_shape": list(level.latent_shape), "composed": composed}
    write_json(folder / "level.json", facts)
