"""The learning rate of each update: a linear rise, then half a cosine down to zero."""

from __future__ import annotations

import math
from typing import overload

from torch import Tensor

from lapcvae.training.settings import TrainingSettings


@overload
def warm_up(update: int, over: int) -> float: ...


@overload
def warm_up(update: int | Tensor, over: int) -> float | Tensor: ...


def warm_up(update: int | Tensor, over: int) -> float | Tensor:
    """How far a linear rise over so many updates has come at one, counted from 0; 1 where there is none."""
    if not over:
        return 1.0
    risen = (update + 1) / over
    return risen.clamp(max=1.0) if isinstance(risen, Tensor) else min(1.0, risen)


def learning_rate(settings: TrainingSettings, update: int) -> float:
    """The rate of an update, counted from 0."""
    rise = warm_up(update, settings.warmup_updates)
    fall = 0.5 * (1 + math.cos(math.pi * update / settings.updates))
    return settings.learning_rate * rise * fall
