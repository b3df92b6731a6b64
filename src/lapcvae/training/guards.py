"""When training has gone wrong, and what is done: return to the last good checkpoint, or stop, or only say so."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Updates passed over one after another that are taken for divergence and not for bad luck.
IN_A_ROW = 5
# A rise of the loss over its lowest interval, in nats a dimension, that is taken for an explosion: for a Gaussian
# likelihood an error e^5 = 150 times as large.
EXPLOSION_NATS = 5.0
# The learning rate is multiplied with this at each return.
SLOWER = 0.5
# A latent whose KL stays below this many nats carries nothing (1 % of a nat, as in Burda et al. 2016 for variances).
UNUSED_NATS = 0.01
# Share of the updates after which latents should have been found useful.
_SETTLED = 0.5


def verdict(loss_nats_per_dim: float, lowest: float, accepted: int, in_a_row: int, finite: bool, updates: int) -> str:
    """Why an interval calls for a return to the last good checkpoint, or ""."""
    if not finite or accepted == 0 or not math.isfinite(loss_nats_per_dim):
        return "the loss or its gradient is no longer finite"
    if in_a_row >= min(IN_A_ROW, updates):
        return f"{in_a_row} updates in a row had an exploding or non-finite loss or gradient"
    if loss_nats_per_dim > lowest + EXPLOSION_NATS:
        return f"the loss has exploded: {loss_nats_per_dim:.2f} nats a dimension after {lowest:.2f} at best"
    return ""


def all_finite(tensors: dict[str, Tensor]) -> bool:
    """Whether every number of these tensors is finite; waits for the device."""
    floats = [t for t in tensors.values() if t.is_floating_point()]
    # One number a tensor: an infinite or missing value anywhere makes its largest absolute value so.
    return bool(torch.stack(torch._foreach_norm(floats, math.inf)).isfinite().all())


def collapse(label: str, kl_units_nats: Tensor, importance_nats: float) -> str:
    """The collapse alarm: a warning where the latents of a level say nothing, or "".

    kl_units_nats: the mean KL of each latent. It sounds where the mean of these is below `UNUSED_NATS`.
    importance_nats: the latents' permutation importance (`models.likelihood.permutation_importance`), NaN where it is
    not known. A rate alone does not tell: with free bits a latent keeps nats that the decoder may not listen to.
    """
    latents, rate_nats = kl_units_nats.numel(), float(kl_units_nats.sum())
    if rate_nats < UNUSED_NATS * latents:
        unused = int((kl_units_nats < UNUSED_NATS).sum())
        return (
            f"warning: {label}: posterior collapse: {unused} of {latents} latents carry less than {UNUSED_NATS} nats "
            f"each ({rate_nats:.3f} nats in all); lower `kl_weight`, or raise `kl_warmup` or `free_bits`"
        )
    if is_ignored(importance_nats, latents):
        return (
            f"warning: {label}: posterior collapse: the {latents} latents carry {rate_nats:.1f} nats, but tell the "
            f"decoder nothing: with another photograph's, distortion changes by {importance_nats:+.3f} nats; lower "
            "`learning_rate` or `kl_weight`, or raise `kl_warmup`"
        )
    return ""


def is_ignored(importance_nats: float, latents: int) -> bool:
    """Whether latents of this permutation importance change next to nothing; not known (NaN) is no."""
    return importance_nats < UNUSED_NATS * latents


def settled(update: int, updates: int) -> bool:
    """Whether so much of the training has passed that latents should have been found useful."""
    return update >= _SETTLED * updates
