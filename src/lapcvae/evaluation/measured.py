"""Everything measured of some models on the same people, and the first of them against the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lapcvae.evaluation.evaluate import EvaluationConfig, evaluate
from lapcvae.evaluation.features import FeatureNetwork, difference
from lapcvae.evaluation.intervals import Against
from lapcvae.evaluation.people import People
from lapcvae.evaluation.pictures import PictureMeasures, Pictures
from lapcvae.models.cascade import Cascade


@dataclass(frozen=True)
class Measured:
    """metrics: those of `evaluate` and `PictureMeasures`, and, of the first model, `against.NAME` of each other one.
    images: per-image columns. pictures: its samples and what is near them.
    """

    metrics: dict[str, Any]
    images: dict[str, np.ndarray]
    pictures: Pictures


def measure_all(
    models: dict[str, Cascade], people: People, network: FeatureNetwork | None, config: EvaluationConfig, seed: int
) -> dict[str, Measured]:
    """Measure every model; the first is ours, and stands against each of the others with paired differences.

    Without a network feature distances are absent. Raises `DataError` where there is nothing to measure on.
    """
    names = people.names[people.test]
    found: dict[str, Measured] = {}
    evaluations = {
        name: evaluate(model, people.photographs, people.test, people.calibration, config.batch, seed, names)
        for name, model in models.items()
    }
    sets = PictureMeasures(people, network, config.distance_images, config.batch, seed)
    for name, model in models.items():
        pictures = sets.measure(model)
        metrics = {**evaluations[name].metrics, **pictures.metrics}
        found[name] = Measured(metrics, evaluations[name].images, pictures)
    ours, *others = found
    for other in others:
        found[ours].metrics.setdefault("against", {})[other] = _against(found[ours], found[other], names)
    return found


def _against(ours: Measured, other: Measured, names: np.ndarray) -> dict[str, Any]:
    differences: dict[str, Any] = Against(ours.images, other.images, names).differences()
    if ours.pictures.distances is not None and other.pictures.distances is not None:
        differences |= difference(ours.pictures.distances, other.pictures.distances)
    return differences
