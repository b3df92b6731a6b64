"""Levels and baselines on packed arrays of any size, for benchmarks: needs torch, numpy and safetensors only.

What is in the images does not change the speed of training, so where no crops are given they are smooth noise.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lapcvae.data.batches import PackedImages
from lapcvae.models.level import LevelCVAE
from lapcvae.models.scale import scale_of
from lapcvae.models.settings import PRESETS, ModelSettings
from lapcvae.pyramid.laplacian import PyramidConfig
from lapcvae.pyramid.stored import StoredPyramid, read_pyramid, write_pyramid
from lapcvae.training.arrays import LevelArrays
from lapcvae.training.loop import train
from lapcvae.training.processes import Processes
from lapcvae.training.settings import TrainingSettings
from lapcvae.training.trainable import LevelTraining, Trainable

PLAIN = {"network": "plain", "width": 32, "latent": "vector", "latent_size": 128}


def noise_images(count: int, side: int) -> np.ndarray:
    """N S S 3 uint8, smooth."""
    coarse = torch.rand(min(count, 256), 3, side // 8, side // 8, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(coarse, size=side, mode="bilinear").mul(255).byte()
    images = x.permute(0, 2, 3, 1).numpy()
    return np.concatenate([images] * -(-count // len(images)))[:count]


def pyramid_of(images: np.ndarray, folder: Path) -> tuple[StoredPyramid, dict[str, np.ndarray]]:
    """Write the pyramid of N S S 3 uint8 into a folder, the last sixteenth of the images held out."""
    held_out = max(1, len(images) // 16)
    splits = ["train"] * (len(images) - held_out) + ["val"] * held_out
    write_pyramid(images, splits, PyramidConfig(), folder)
    return read_pyramid(folder)


def level_of(
    stored: StoredPyramid, folder: Path, k: int, device: torch.device, resident: bool | None = None, **settings: Any
) -> LevelTraining:
    """Level k on a pyramid, its coarser images being the true ones: as costly as those of a trained level."""
    chosen = ModelSettings(**{**PRESETS["modern"], **settings})
    level = LevelCVAE(chosen, stored.sides[k - 1], k == stored.depth, scale_of(stored.statistics, k, stored.depth))
    own = PackedImages(folder / f"x{k}.npy", device, resident)
    if k == stored.depth:
        return LevelTraining(level, LevelArrays(own), stored.kind)
    image, mean = (PackedImages(folder / f"x{k + 1}.npy", device, resident) for _ in range(2))
    return LevelTraining(level, LevelArrays(own, image, mean, -3.0), stored.kind)


def baseline_of(stored: StoredPyramid, folder: Path, device: torch.device, **settings: Any) -> LevelTraining:
    """A plain VAE of the whole image."""
    whole = stored.statistics["1"]
    statistics = {"1": {**whole, "band_std": float(np.mean(whole["std"]))}}
    chosen = ModelSettings(**{**PRESETS["modern"], **settings})
    level = LevelCVAE(chosen, stored.sides[0], True, scale_of(statistics, 1, 1))
    return LevelTraining(level, LevelArrays(PackedImages(folder / "x1.npy", device)), stored.kind)


def images_per_second(
    trainable: Trainable, rows: dict[str, np.ndarray], settings: TrainingSettings, device: torch.device
) -> float:
    """Of the loop from the end of its first logging interval to the end of its last; each ends with the device idle."""
    return rates(trainable, rows, settings, device)[0]


def rates(
    trainable: Trainable, rows: dict[str, np.ndarray], settings: TrainingSettings, device: torch.device
) -> tuple[float, float]:
    """`images_per_second`, and images a second of this process's processor time, which other processes move less."""
    moments: list[tuple[float, float, float]] = []
    train(
        trainable,
        {**rows, "val": rows["val"][:0]},
        settings,
        0,
        Processes(device),
        "benchmark",
        on_log=lambda row: moments.append((row["images_seen"], time.perf_counter(), time.process_time())),
    )
    images, seconds, busy = (last - first for first, last in zip(moments[0], moments[-1], strict=True))
    return images / seconds, images / busy
