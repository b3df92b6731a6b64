"""How a level or a baseline is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["auto", "fp32", "bf16"]
Compile = Literal["auto", "off", "on", "graphs", "full"]


@dataclass(frozen=True)
class TrainingSettings:
    """The optimiser and its schedule.

    updates               optimiser steps
    batch                 images a step
    learning_rate         peak of a linear warm-up and cosine decay to zero
    warmup_updates        steps of the warm-up
    weight_decay          of AdamW
    clip_norm             largest norm of the gradient of the loss a target dimension
    ema_half_life_images  images after which a weight's share in the average has halved; 0 keeps the last weights
    precision             `bf16` runs the networks under autocast (likelihood and KL stay fp32); `auto` does so on GPUs
                          with bf16 units, and on processors where a few timed steps say that it is faster
                          (training/precision.py); what was chosen stands in run.json and in the checkpoints
    log_interval          updates between two rows of the curve
    accumulate            parts a batch is computed in, one after another, where it does not fit the device's memory:
                          gradients are averaged, then there is one step. The usual meaning: what a network or a loss
                          takes from its batch (batch norm's mean and variance, an optimal sigma, free bits) is a
                          part's; without those it is the whole batch's step to float rounding
    compile               `off`; `on`: networks go through PyTorch's compiler; `graphs`: updates are replayed as CUDA
                          graphs, without which a GPU waits for small networks to be launched; `full`: both; or `auto`:
                          `off` on a processor, and on a GPU `graphs`, or `full` from 10,000 updates on, which win back
                          the half minute that compiling takes
    checkpoint_interval   updates between two checkpoints, rounded up to whole logging intervals
    max_rollbacks         returns to an earlier checkpoint, each with half the learning rate, before training gives up
    """

    updates: int
    batch: int = 64
    learning_rate: float = 1e-3
    warmup_updates: int = 50
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_half_life_images: int = 4000
    precision: Precision = "auto"
    log_interval: int = 50
    accumulate: int = 1
    compile: Compile = "auto"
    checkpoint_interval: int = 100
    max_rollbacks: int = 3

    def __post_init__(self) -> None:
        for name in ("updates", "batch", "log_interval", "accumulate", "checkpoint_interval"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1")
        for name in ("warmup_updates", "weight_decay", "ema_half_life_images", "max_rollbacks"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative")
        if self.learning_rate <= 0 or self.clip_norm <= 0:
            raise ValueError("`learning_rate` and `clip_norm` must be above 0")
        if self.batch % self.accumulate:
            raise ValueError(f"`batch` ({self.batch}) must be a multiple of `accumulate` ({self.accumulate})")

    @property
    def checkpoint_every(self) -> int:
        """Updates between two checkpoints: a multiple of `log_interval`, where the loss is known to be sound."""
        return -(-self.checkpoint_interval // self.log_interval) * self.log_interval
