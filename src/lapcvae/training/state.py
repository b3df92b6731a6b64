"""Everything a training run is at one moment: what a checkpoint holds and brings back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lapcvae.training.checkpoint import Checkpoint
from lapcvae.training.ema import WeightAverage
from lapcvae.training.meter import Meter
from lapcvae.training.optimiser import Optimiser

_PLAIN = ("rate_scale", "passed_over", "seconds", "unused_latents", "latents", "collapse_told", "precision")
Curve = list[dict[str, float]]


class TrainingState:
    """Model, weight average, optimiser, running sums, and where the run is.

    update: updates done. curve: rows so far. seconds: spent so far, earlier starts included. rate_scale: what guards
    have lowered the learning rate to. passed_over: updates the guards have passed over. unused_latents, latents: in the
    last interval. collapse_told: whether the collapse alarm has sounded. precision: `fp32` or `bf16`, once chosen, so
    that a run that goes on computes as it did. Batches and noise are functions of
    (seed, update), so they need no state.
    """

    def __init__(self, model: nn.Module, average: WeightAverage, optimiser: Optimiser, meter: Meter) -> None:
        self.model, self.average, self.optimiser, self.meter = model, average, optimiser, meter
        self.update, self.rollbacks, self.passed_over = 0, 0, 0
        self.rate_scale = 1.0
        self.unused_latents, self.latents, self.collapse_told = 0, 0, False
        self.seconds = 0.0
        self.precision = ""
        self.curve: Curve = []

    def capture(self, regular: bool) -> Checkpoint:
        """A copy of everything, on the processor."""
        meter, meter_state = self.meter.capture()
        tensors = {
            **_under("model", self.model.state_dict()),
            **_under("average", self.average.state),
            **_under("optimiser", self.optimiser.capture()),
            **_under("meter", meter),
        }
        state: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        state |= {"curve": list(self.curve), "meter": meter_state}
        return Checkpoint(self.update, self.rollbacks, regular, copied(tensors), state)

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint. Tensors are copied into place, so layouts and references stay."""
        for group, live in (("model", self.model.state_dict()), ("average", self.average.state)):
            for name, value in live.items():
                value.copy_(checkpoint.tensors[f"{group}.{name}"])
        self.optimiser.restore(_below("optimiser", checkpoint.tensors))
        state = checkpoint.state
        self.meter.restore(_below("meter", checkpoint.tensors), state["meter"])
        self.update, self.rollbacks = checkpoint.update, checkpoint.rollbacks
        self.curve = list(state["curve"])
        for name in _PLAIN:
            setattr(self, name, state[name])


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the processor; those of one type share their memory.

    Together, because each copy by itself would wait for a GPU.
    """
    kinds: dict[torch.dtype, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kinds.setdefault(value.dtype, {})[name] = value.detach()
    copies: dict[str, Tensor] = {}
    for alike in kinds.values():
        whole = torch.cat([value.reshape(-1) for value in alike.values()]).cpu()
        parts = whole.split([value.numel() for value in alike.values()])
        copies |= {name: part.view(alike[name].shape) for name, part in zip(alike, parts, strict=True)}
    return {name: copies[name] for name in tensors}


def _under(group: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{group}.{name}": value for name, value in tensors.items()}


def _below(group: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{group}."): value for name, value in tensors.items() if name.startswith(f"{group}.")}
