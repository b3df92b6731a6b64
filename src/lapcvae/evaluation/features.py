"""How far pictures are from photographs in a network's features: `kd_NETWORK` and `fd_NETWORK`.

Three sets of n pictures stand against one reference, n photographs of other held-out people: the photographs
themselves (the floor: what real people are from other real people), their reconstructions, and samples of the prior.
Reference and pictures share no person, so a reconstruction gains nothing from being of a photograph in the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lapcvae.evaluation.distances import frechet_distance, kernel_distance, kernel_distances

RESAMPLES = 1000
CONFIDENCE = 0.95
_BATCH = 32  # first layers of a network are wide: more at a time cost memory and no time


class FeatureNetwork(Protocol):
    """A network that was trained on other data. `name` stands in the metrics' names."""

    @property
    def name(self) -> str: ...

    def features(self, x: Tensor) -> Tensor:
        """B D features of B 3 S S images on [0, 1]."""


@torch.no_grad()
def features(network: FeatureNetwork, x: Tensor) -> np.ndarray:
    """N D float64 features of images N 3 S S, clipped to [0, 1] as pictures are."""
    parts = [network.features(part.clamp(0, 1)).double().cpu().numpy() for part in x.split(_BATCH)]
    return np.concatenate(parts)


@dataclass(frozen=True)
class Reference:
    """Features of the reference (n D), and of the photographs whose people the pictures are of (n D), with the people
    of both; what is the same for all models.
    """

    network: str
    reference: np.ndarray
    reference_people: np.ndarray
    photographs: np.ndarray
    photographs_people: np.ndarray


@dataclass(frozen=True)
class FeatureDistances:
    """metrics: as they stand in metrics.json. resampled: kernel distances in each resample of people, R a kind; equal
    seeds draw equal people, so two models' differ by what the models do.
    """

    metrics: dict[str, Any]
    resampled: dict[str, np.ndarray]


def feature_distances(
    found: Reference, reconstructions: np.ndarray, samples: np.ndarray, seed: int
) -> FeatureDistances:
    """Kernel and Frechet distances of reconstructions and samples (n D each) to the reference, with the floor."""
    n = len(found.reference)
    random = np.random.default_rng([seed, 7])
    drawn_reference = _draws(found.reference_people, random)
    drawn_people = _draws(found.photographs_people, random)
    drawn_samples = _draws(np.arange(len(samples)), random)
    kernel: dict[str, Any] = {"n": n, "floor": kernel_distance(found.photographs, found.reference)}
    frechet: dict[str, Any] = {"n": n, "floor": frechet_distance(found.photographs, found.reference)}
    resampled = {}
    for name, pictures, drawn in (
        ("reconstructions", reconstructions, drawn_people),
        ("samples", samples, drawn_samples),
    ):
        frechet[name] = frechet_distance(pictures, found.reference)
        resampled[name] = kernel_distances(pictures, found.reference, drawn, drawn_reference)
        kernel[name] = {"value": kernel_distance(pictures, found.reference), **_ends(resampled[name])}
    return FeatureDistances({f"kd_{found.network}": kernel, f"fd_{found.network}": frechet}, resampled)


def difference(ours: FeatureDistances, other: FeatureDistances) -> dict[str, Any]:
    """Our kernel distances minus the other model's, with their 95 % intervals: below 0, ours are nearer to people."""
    found: dict[str, Any] = {}
    for key, mine in ours.metrics.items():
        if not key.startswith("kd_"):
            continue
        found[key] = {
            name: {
                "mean": mine[name]["value"] - other.metrics[key][name]["value"],
                **_ends(ours.resampled[name] - other.resampled[name]),
            }
            for name in ours.resampled
        }
    return found


def _draws(people: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """How often each picture is in each resample of people, R x n."""
    _, owner = np.unique(people, return_inverse=True)
    count = int(owner.max()) + 1
    drawn = random.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    picked: np.ndarray = drawn[:, owner].astype(np.float64)
    return picked


def _ends(resampled: np.ndarray) -> dict[str, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return {"ci95_low": float(low), "ci95_high": float(high)}
