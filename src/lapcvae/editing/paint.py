"""A face with a painted coarse level: finer levels are drawn anew and blended into the photograph.

1. The photograph is decomposed and reconstructed: x~_1 ... x~_K and its latents.
2. A coarse level x~_k is replaced by the painted picture p, s_k x s_k pixels:
   direct    p is taken as it is;
   project   p is encoded and decoded by levels k ... K first, so what they cannot say is lost, and what they say of
             faces is put in its place.
3. Finer levels are drawn from their priors, given what was painted.
4. Where the mask is 1, bands of the drawn face replace those of the reconstruction, feathered (`blend`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from lapcvae.editing.blend import blend, changed
from lapcvae.editing.sampling import check_level, seeded
from lapcvae.errors import ConfigError
from lapcvae.models.cascade import Cascade, latents

Mode = Literal["project", "direct"]


@dataclass(frozen=True)
class Edit:
    """faces: blended, N 3 S S. drawn: the same before blending. reconstruction: 1 3 S S. coarse: what finer levels
    went on from, 1 3 s_k s_k. mask: 1 1 S S, 1 where the drawn face is taken.
    """

    faces: Tensor
    drawn: Tensor
    reconstruction: Tensor
    coarse: Tensor
    mask: Tensor


def coarse_level(model: Cascade, face: Tensor, k: int) -> Tensor:
    """x~_k of a photograph, 1 3 s_k s_k: the picture to paint on."""
    check_level(model, k)
    return model.reconstruct(face)[k - 1].rebuilt


def edit(
    model: Cascade,
    face: Tensor,
    painted: Tensor,
    k: int,
    count: int,
    seed: int,
    mode: Mode = "project",
    mask: Tensor | None = None,
    temperature: float = 1.0,
) -> Edit:
    """`count` faces from a photograph (1 3 S S) whose level k was painted over.

    painted: 1 3 H W, square: level k itself, or a larger picture of it, which is averaged down. mask: 1 1 S S, 1
    where the edit goes; None takes what differs from the photograph's own x~_k.
    Raises `ConfigError` for a level that is not there or is the finest, or a picture that does not fit it.
    """
    check_level(model, k, least=2)
    passes = model.reconstruct(face)
    before = passes[k - 1].rebuilt
    target = fit(painted.to(face.device), before.shape[-1])
    if mode == "project":
        kept, coarse = _project(model, target, k)
        drawn = model.sample(count, seeded(seed), temperature, keep=kept)
    else:
        kept, coarse = {j: z for j, z in latents(passes).items() if j >= k}, target
        drawn = model.sample(count, seeded(seed), temperature, keep=kept, paint={k: target})
    side = face.shape[-1]
    # Painted pictures are 8 bit, so what is compared has to be.
    where = changed(target, (before.clamp(0, 1) * 255).round() / 255, side) if mask is None else mask.to(face.device)
    whole = passes[0].rebuilt
    faces = blend(drawn.images[0], whole.expand(count, -1, -1, -1), where)
    return Edit(faces, drawn.images[0], whole, coarse, where)


def region(picture: Tensor, side: int) -> Tensor:
    """A mask from a picture (1 3 H W), white where the edit goes: 1 1 side side on [0, 1]. Raises `ConfigError`."""
    height, width = picture.shape[-2:]
    if height != width:
        raise ConfigError(f"the mask is {width} x {height} pixels; it must be square, as the face is")
    grey = picture.mean(1, keepdim=True)
    if width == side:
        return grey
    return F.interpolate(grey, size=(side, side), mode="bilinear", antialias=True).clamp(0, 1)


def fit(painted: Tensor, side: int) -> Tensor:
    """A painted picture (1 3 H W) at `side` px. Raises `ConfigError` unless it is square and at least as large."""
    height, width = painted.shape[-2:]
    if height != width or width < side:
        raise ConfigError(
            f"the painted picture is {width} x {height} pixels; paint on the picture of that level ({side} x {side}), "
            "or on a larger square one"
        )
    if width == side:
        return painted
    if width % side == 0:
        # Whole blocks: a picture enlarged by repeating pixels comes back as it was.
        return F.avg_pool2d(painted, width // side)
    return F.interpolate(painted, size=(side, side), mode="bilinear", antialias=True)


def _project(model: Cascade, target: Tensor, k: int) -> tuple[dict[int, Tensor], Tensor]:
    """Latents of levels k ... K that say `target` best, and what they decode to."""
    coarse = Cascade([model.level(j) for j in range(k, model.depth + 1)], model.kind)  # a pyramid that ends at level k
    passes = coarse.reconstruct(target)
    return {k - 1 + j: z for j, z in latents(passes).items()}, passes[0].rebuilt
