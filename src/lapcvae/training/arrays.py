"""The packed arrays one level trains from, and where they lie.

data/pyramid/ holds x_k (see pyramid/precompute.py), data/rebuilt/levelN/ what level N = k+1 left (training/rebuild.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lapcvae.data.batches import PackedImages
from lapcvae.errors import ConfigError, DataError
from lapcvae.io.atomic import read_json
from lapcvae.models.level import Coarser, LevelCVAE
from lapcvae.models.settings import ModelSettings


@dataclass(frozen=True)
class LevelArrays:
    """Packed arrays a level trains from: its own images x_k and, below the coarsest, level k+1 as it rebuilt them.

    posterior: N 2 2 D fp32, posterior mean and log std of z_{k+1} by orientation, D = the product of `latent_shape`;
    only for prior networks that read it.
    """

    images: PackedImages
    coarse_image: PackedImages | None = None
    coarse_mean: PackedImages | None = None
    coarse_log_sigma: float = 0.0
    posterior: np.ndarray | None = None
    latent_shape: tuple[int, ...] = ()

    def pick(self, rows: np.ndarray, flips: np.ndarray) -> tuple[Tensor, ...]:
        """Tensors of these rows and orientations as they are stored, for `unpack`."""
        arrays = [a for a in (self.images, self.coarse_image, self.coarse_mean) if a is not None]
        # One for all that lie in the same place: as a rule, for all.
        indices = {where: array.index(rows, flips) for where, array in {a.resident: a for a in arrays}.items()}
        packed = tuple(tensor for array in arrays for tensor in array.pick(rows, flips, indices[array.resident]))
        if self.posterior is None:
            return packed
        posterior = torch.from_numpy(self.posterior[rows, flips])
        device = self.images.device
        # As the images are: on the device where they lie there, and otherwise ready to be copied.
        if self.images.resident:
            return (*packed, posterior.pin_memory().to(device, non_blocking=True))
        return (*packed, posterior if device.type == "cpu" else posterior.pin_memory())

    def unpack(self, packed: tuple[Tensor, ...]) -> tuple[Tensor, Coarser | None]:
        """(x_k, level k+1) of what `pick` returned, once it is on the device."""
        x = self.images.unpack(packed[:2])
        if self.coarse_image is None or self.coarse_mean is None:
            return x, None
        image, mean = self.coarse_image.unpack(packed[2:4]), self.coarse_mean.unpack(packed[4:6])
        coarser = Coarser(image, mean, self.coarse_log_sigma)
        if self.posterior is None:
            return x, coarser
        z, z_log_std = packed[6].unflatten(2, self.latent_shape).unbind(1)
        return x, replace(coarser, z=z, z_log_std=z_log_std)

    def gather(self, rows: np.ndarray, flips: np.ndarray) -> tuple[Tensor, Coarser | None]:
        """(x_k, level k+1) of these rows and orientations."""
        return self.unpack(tuple(tensor.to(self.images.device) for tensor in self.pick(rows, flips)))

    def mean_log_std(self, rows: np.ndarray) -> Tensor:
        """Mean posterior log std of z_{k+1} over these rows and both orientations, in the latents' shape."""
        assert self.posterior is not None
        return torch.from_numpy(self.posterior[rows, :, 1].mean((0, 1))).view(self.latent_shape)


@dataclass(frozen=True)
class LevelData:
    """training: what the level is shown in training. composed: what it gets in the composed model. The two differ in
    the coarser image where `condition` is not `rebuilt`. files: those read. apart: what all coarser levels rebuild is
    not known here, so that `composed` has true images, or such as came of them.
    """

    training: LevelArrays
    composed: LevelArrays
    files: list[Path]
    apart: bool = False


def open_arrays(
    level: int, depth: int, settings: ModelSettings, pyramid: Path, after: Path, device: torch.device
) -> LevelData:
    """Open what level `level` of `depth` trains from; `after` is its entry in params.yaml.

    Raises `ConfigError` where `after` names nothing that these settings can train from, `DataError` where arrays do
    not belong together.
    """
    own = pyramid / f"x{level}.npy"
    images = PackedImages(own, device)
    if level == depth:
        return LevelData(LevelArrays(images), LevelArrays(images), [own])
    true = pyramid / f"x{level + 1}.npy"
    if after.is_file():
        if settings.needs_coarser:
            raise ConfigError(
                f"params.yaml: `levels.{level}.after` is {after}, but `condition: {settings.condition}` with `prior: "
                f"{settings.prior}` trains on what level {level + 1} made: name data/rebuilt/level{level + 1}, or set "
                "`condition: true` (or noisy_true) and `prior: standard`"
            )
        # The prior network is a constant: nothing reads a coarser mean, and there is none.
        truth = PackedImages(true, device)
        arrays = LevelArrays(images, truth, truth)
        return LevelData(arrays, arrays, [own, true], apart=True)
    facts = _facts(after)
    if settings.needs_coarser and not facts["composed"]:
        raise ConfigError(
            f"params.yaml: level {level + 1} was trained apart from the levels above it, so {after} is not what the "
            f"composed model rebuilds, which level {level} needs; train level {level} apart too (`condition: true` and "
            f"`prior: standard`, after data/pyramid/pyramid.json), or level {level + 1} after the one above it"
        )
    image, mean, posterior = (after / f"{name}.npy" for name in ("image", "mean", "posterior"))
    files = [own, image, mean]
    composed = LevelArrays(images, PackedImages(image, device), PackedImages(mean, device), float(facts["log_sigma"]))
    if composed.coarse_image is None or composed.coarse_image.count != images.count:
        raise DataError(f"{image}: holds another number of photographs than {own}; run `dvc repro` to make both anew")
    if settings.prior in ("latent", "ancestral"):
        files.append(posterior)
        stored = _posterior(posterior, images.count, tuple(facts["latent_shape"]))
        composed = replace(composed, posterior=stored, latent_shape=tuple(facts["latent_shape"]))
    if settings.condition == "rebuilt":
        return LevelData(composed, composed, files)
    training = replace(composed, coarse_image=PackedImages(true, device))
    return LevelData(training, composed, [*files, true], apart=not facts["composed"])


def prepare_prior(level: LevelCVAE, arrays: LevelArrays, rows: np.ndarray) -> None:
    """Give a level whose prior reads z_{k+1}'s posterior the mean log std of the training rows, for when z is drawn."""
    if level.prior_latent is not None and level.settings.prior == "latent":
        level.coarse_log_std.copy_(arrays.mean_log_std(rows))


def _facts(after: Path) -> dict[str, Any]:
    path = after / "level.json"
    try:
        facts: dict[str, Any] = read_json(path)
    except (OSError, ValueError):
        raise DataError(
            f"{path}: not readable; the level's `after` in params.yaml must name what the coarser level rebuilt, as "
            "data/rebuilt/level3 for level 2"
        ) from None
    return facts


def _posterior(path: Path, count: int, shape: tuple[int, ...]) -> np.ndarray:
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable array ({error}); run `dvc repro` to make it anew") from None
    if stored.shape != (count, 2, 2, int(np.prod(shape))):
        raise DataError(f"{path}: is {stored.shape}, which does not fit level.json; run `dvc repro` to make it anew")
    return stored


def coarser_latents(settings: ModelSettings, coarsest: bool, after: Path) -> tuple[int, ...]:
    """Shape of z_{k+1}, for a `Description`; empty where the prior network does not read it. Raises `DataError`."""
    if coarsest or settings.prior not in ("latent", "ancestral"):
        return ()
    return tuple(_facts(after)["latent_shape"])
