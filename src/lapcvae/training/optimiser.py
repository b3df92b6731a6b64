"""AdamW for each part of a trainable, stepping only where loss and gradient are sound; decided on the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lapcvae.training.settings import TrainingSettings

# A gradient this many times the running mean of those before it is taken for an explosion and passed over.
NORM_RATIO = 1000.0
# Updates whose gradient norms make the first running mean.
_NORMS_NEEDED = 20
_NORM_DECAY = 0.95


class Optimiser:
    """Fused AdamW a part, its gradient clipping, and the guard that passes over an unsound update.

    Whether an update is sound is known on the device only: AdamW's own kernel is told to leave weights and moments as
    they are, so no update waits for the GPU.
    """

    def __init__(
        self, parts: Mapping[str, list[nn.Parameter]], settings: TrainingSettings, device: torch.device
    ) -> None:
        self.parts = {name: list(parameters) for name, parameters in parts.items()}
        self._clip_norm = settings.clip_norm
        self._adams = {
            name: torch.optim.AdamW(
                parameters,
                lr=settings.learning_rate,
                weight_decay=settings.weight_decay,
                betas=(0.9, 0.99),
                fused=True,
            )
            for name, parameters in self.parts.items()
        }
        for name, adam in self._adams.items():
            for parameter in self.parts[name]:
                # Made here and not at the first step, so that a checkpoint can be copied in: in the layout of the
                # parameter, which the fused kernel relies on.
                adam.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=device),
                    "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                }
        self._norm_mean, self._norms_seen = torch.zeros(2, device=device).unbind()

    def backward(self, losses: Mapping[str, Tensor], share: float) -> None:
        """Add `share` of each part's gradient of its own loss."""
        for i, (name, loss) in enumerate(losses.items()):
            scaled = loss if share == 1 else loss * share
            if len(self.parts) == 1:
                scaled.backward()
            else:
                scaled.backward(inputs=self.parts[name], retain_graph=i + 1 < len(losses))

    @torch.no_grad()
    def clip(self) -> tuple[Tensor, Tensor]:
        """Clip each part; (norm before clipping of all parts together, whether it is finite and not exploding)."""
        norms = [nn.utils.clip_grad_norm_(parameters, self._clip_norm) for parameters in self.parts.values()]
        norm = norms[0] if len(norms) == 1 else torch.stack(norms).norm()
        usual = (self._norms_seen < _NORMS_NEEDED) | (norm <= NORM_RATIO * self._norm_mean)
        return norm, torch.isfinite(norm) & usual

    @torch.no_grad()
    def step(self, learning_rate: float, norm: Tensor, accepted: Tensor) -> None:
        """Step every part where `accepted` (a 0-d bool on the device); gradients are then forgotten."""
        refused = 1.0 - accepted.float()
        for adam in self._adams.values():
            for group in adam.param_groups:
                group["lr"] = learning_rate
            adam.found_inf = refused  # type: ignore[attr-defined]
            adam.step()
            adam.zero_grad(set_to_none=True)
        first = self._norms_seen == 0
        mean = torch.where(first, norm, torch.lerp(norm, self._norm_mean, _NORM_DECAY))
        self._norm_mean = torch.where(accepted, mean, self._norm_mean)
        self._norms_seen = self._norms_seen + accepted.float()

    def capture(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on."""
        tensors = {"norm_mean": self._norm_mean, "norms_seen": self._norms_seen}
        for name, adam in self._adams.items():
            for i, parameter in enumerate(self.parts[name]):
                tensors |= {f"{name}.{i}.{key}": value for key, value in adam.state[parameter].items()}
        return tensors

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what was captured."""
        for name, value in self.capture().items():
            value.copy_(tensors[name])
