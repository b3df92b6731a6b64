"""What training leaves beside the model."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass

import torch

from lapcvae.training.settings import TrainingSettings
from lapcvae.training.state import Curve, TrainingState


@dataclass(frozen=True)
class TrainingResult:
    """What training leaves beside the model, which holds the averaged weights.

    curve: a dict a logging interval: `update`, `images_seen`, then nats an image (`loss_nats`, `rate_nats`,
    `distortion_nats` on training batches, `val_loss_nats` on held-out people), `sigma`, `gradient_norm`,
    `learning_rate`, and any other scalar the trainable names. seconds: of all starts together. unused_latents: latents
    whose KL stayed under 0.01 nats in the last interval, of `latents` (0 where the trainable does not tell).
    passed_over, rollbacks: updates the guards skipped, and returns to a checkpoint. precision: `fp32` or `bf16`, what
    the networks ran in.
    """

    curve: Curve
    seconds: float
    images_per_second: float
    peak_memory_bytes: int
    unused_latents: int = 0
    latents: int = 0
    passed_over: int = 0
    rollbacks: int = 0
    precision: str = "fp32"

    @classmethod
    def of(cls, state: TrainingState, settings: TrainingSettings, device: torch.device) -> TrainingResult:
        """What a finished training's state says."""
        return cls(
            curve=state.curve,
            seconds=state.seconds,
            images_per_second=settings.updates * settings.batch / max(state.seconds, 1e-9),
            peak_memory_bytes=peak_memory_bytes(device),
            unused_latents=state.unused_latents,
            latents=state.latents,
            passed_over=state.passed_over,
            rollbacks=state.rollbacks,
            precision=state.precision,
        )


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory taken so far: the GPU's allocator, or the process on the processor."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
