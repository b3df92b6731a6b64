"""Faces from the prior, whole or in part: latents of coarse levels fixed, finer ones drawn.

Levels are numbered 1 (finest) to K. One seed stands for one picture.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lapcvae.errors import ConfigError
from lapcvae.models.cascade import Cascade, latents


def seeded(seed: int) -> torch.Generator:
    """A generator on the processor, so that one seed gives the same faces on every device."""
    generator = torch.Generator()
    generator.manual_seed(seed)
    return generator


def check_level(model: Cascade, k: int, least: int = 1) -> None:
    """Raises `ConfigError` unless k is one of the model's levels, and at least `least`."""
    if not least <= k <= model.depth:
        known = f"level {model.depth}" if least == model.depth else f"levels {least} (finest) to {model.depth}"
        advice = f"choose one of {known}" if least <= model.depth else "this model has one level only"
        raise ConfigError(f"there is no level {k} to choose here; {advice}")


def sample(
    model: Cascade, count: int, seed: int, temperature: float = 1.0, finer_temperature: float | None = None
) -> Tensor:
    """`count` faces drawn from the prior, count 3 S S; temperatures as of `Cascade.sample`."""
    if count < 1 or temperature < 0 or (finer_temperature or 0) < 0:
        raise ConfigError(f"{count} faces at temperature {temperature}: at least one, and none below 0")
    return model.sample(count, seeded(seed), temperature, finer_temperature).images[0]


def keep_photograph(
    model: Cascade,
    face: Tensor,
    from_level: int,
    count: int,
    seed: int,
    temperature: float = 1.0,
    finer_temperature: float | None = None,
) -> Tensor:
    """`count` faces with the photograph's latents (posterior mean) at levels from_level ... K and drawn ones below.

    face: 1 3 S S. Returns count 3 S S. At from_level 1 all are kept, and every face is the reconstruction.
    """
    check_level(model, from_level)
    kept = {k: z for k, z in latents(model.reconstruct(face)).items() if k >= from_level}
    return model.sample(count, seeded(seed), temperature, finer_temperature, keep=kept).images[0]


def keep_sample(
    model: Cascade,
    from_level: int,
    count: int,
    seed: int,
    temperature: float = 1.0,
    finer_temperature: float | None = None,
) -> Tensor:
    """The same, with the coarse levels of one face that is drawn itself. The first of the faces is that one, whole."""
    check_level(model, from_level)
    drawn = model.sample(1, seeded(seed), temperature, finer_temperature)
    kept = {k: z for k, z in drawn.latents.items() if k >= from_level}
    # Of a level whose pixels are drawn too, latents do not say all: its picture is kept beside them.
    shown = {from_level: drawn.images[from_level - 1]}
    return model.sample(count, seeded(seed), temperature, finer_temperature, keep=kept, paint=shown).images[0]


def rows_of_levels(
    model: Cascade,
    face: Tensor | None,
    count: int,
    seed: int,
    temperature: float = 1.0,
    finer_temperature: float | None = None,
) -> list[Tensor]:
    """A row a level: `count` faces that keep levels k ... K, for k = K, ..., 2; of a photograph, or else of a sample.

    Further down, fewer levels are drawn, so faces become more alike.
    """
    levels = range(model.depth, 1, -1)
    if face is None:
        return [keep_sample(model, k, count, seed, temperature, finer_temperature) for k in levels]
    return [keep_photograph(model, face, k, count, seed, temperature, finer_temperature) for k in levels]
