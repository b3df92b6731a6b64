"""The learning rate of each update: a linear rise, then half a cosine down to zero."""

from __future__ import annotations

import math

from lapcvae.training.settings import TrainingSettings


def learning_rate(settings: TrainingSettings, update: int) -> float:
    """The rate of an update, counted from 0."""
    rise = min(1.0, (update + 1) / settings.warmup_updates) if settings.warmup_updates else 1.0
    fall = 0.5 * (1 + math.cos(math.pi * update / settings.updates))
    return settings.learning_rate * rise * fall
