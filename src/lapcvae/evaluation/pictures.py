"""Sets of pictures of one model beside photographs: samples' detail, training neighbours, feature distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lapcvae.evaluation.detail import set_ratios
from lapcvae.evaluation.features import FeatureDistances, FeatureNetwork, Reference, feature_distances, features
from lapcvae.evaluation.neighbours import Nearest, nearest, summary
from lapcvae.evaluation.people import People
from lapcvae.models.cascade import Cascade


@dataclass(frozen=True)
class Pictures:
    """metrics: `samples`, `nearest_training` where training photographs are known, and, with a network,
    `kd_NETWORK` and `fd_NETWORK`. samples: n 3 S S, drawn at temperature 1. neighbours: of the samples, or None.
    """

    metrics: dict[str, Any]
    samples: Tensor
    neighbours: Nearest | None
    distances: FeatureDistances | None


class PictureMeasures:
    """What is the same for all models, worked out once: the two sets of held-out people and their features."""

    def __init__(self, people: People, network: FeatureNetwork | None, most: int, batch: int, seed: int) -> None:
        """most: pictures a set at most. Where there are too few people for two sets there are no feature distances."""
        self._people, self._network, self._batch, self._seed = people, network, batch, seed
        self._test, reference = people.two_sets(most)
        self._photographs = people.photographs.gather(self._test, np.zeros_like(self._test))
        self._held_out = None
        if len(people.training):
            self._held_out = nearest(self._photographs, people.photographs, people.training)
        self._reference = None
        if network is not None and len(reference):
            others = people.photographs.gather(reference, np.zeros_like(reference))
            self._reference = Reference(
                network.name,
                features(network, others),
                people.names[reference],
                features(network, self._photographs),
                people.names[self._test],
            )

    @torch.no_grad()
    def measure(self, model: Cascade) -> Pictures:
        """Measure one model; samples are drawn from the same seed for all."""
        n, people = len(self._test), self._people
        rebuilt = torch.cat([model.reconstruct(x)[0].rebuilt for x in self._photographs.split(self._batch)])
        noise = torch.Generator()
        noise.manual_seed(int(np.random.SeedSequence([self._seed, 5]).generate_state(1)[0]))
        counts = [min(self._batch, n - start) for start in range(0, n, self._batch)]
        samples = torch.cat([model.sample(count, noise).images[0] for count in counts])
        metrics: dict[str, Any] = {"samples": {"n": n, **set_ratios(samples, self._photographs)}}
        neighbours = distances = None
        if self._held_out is not None:
            neighbours = nearest(samples, people.photographs, people.training)
            of_rebuilt = nearest(rebuilt, people.photographs, people.training)
            metrics["nearest_training"] = summary(
                {
                    "samples": neighbours.distance,
                    "reconstructions": of_rebuilt.distance,
                    "held_out": self._held_out.distance,
                }
            )
        if self._reference is not None and self._network is not None:
            of_rebuilt_features, of_samples = (features(self._network, pictures) for pictures in (rebuilt, samples))
            distances = feature_distances(self._reference, of_rebuilt_features, of_samples, self._seed)
            metrics |= distances.metrics
        return Pictures(metrics, samples, neighbours, distances)
