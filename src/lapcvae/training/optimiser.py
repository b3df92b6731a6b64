"""AdamW for each part of a trainable, stepping only where loss and gradient are sound; decided on the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lapcvae.training.pieces import in_pieces
from lapcvae.training.settings import TrainingSettings

# A gradient this many times the running mean of those before it is taken for an explosion and passed over.
NORM_RATIO = 1000.0
# Updates whose gradient norms make the first running mean.
_NORMS_NEEDED = 20
_NORM_DECAY = 0.95
_BETAS = (0.9, 0.99)
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


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
        self._weight_decay = settings.weight_decay
        # Moments are made now and not at the first step, so that a checkpoint can be copied in: in the layout of the
        # parameter, which the fused kernel relies on.
        self._moments = {
            name: [
                (torch.zeros_like(parameter), torch.zeros_like(parameter), torch.zeros((), device=device))
                for parameter in parameters
            ]
            for name, parameters in self.parts.items()
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
    def norms(self) -> list[Tensor]:
        """Of each part the norms of its parameters' gradients, a vector."""
        return [torch.stack(torch._foreach_norm(_gradients(part))) for part in self.parts.values()]

    def factors(self, norms: Tensor) -> Tensor:
        """What clips gradients of these norms, one a part: min(1, largest / norm), as `clip_grad_norm_` computes it."""
        return torch.clamp(self._clip_norm / (norms + 1e-6), max=1.0)

    @torch.no_grad()
    def judge(self, norms: Tensor) -> tuple[Tensor, Tensor]:
        """(norm of all parts together, whether it is finite and not exploding) of their norms, P fp32; both 0-d."""
        norm = norms[0] if len(norms) == 1 else norms.norm()
        usual = (self._norms_seen < _NORMS_NEEDED) | (norm <= NORM_RATIO * self._norm_mean)
        return norm, torch.isfinite(norm) & usual

    @torch.no_grad()
    def remember(self, norm: Tensor, accepted: Tensor) -> None:
        """Take the norm into the running mean where `accepted` (a 0-d bool)."""
        first = self._norms_seen == 0
        mean = torch.where(first, norm, torch.lerp(norm, self._norm_mean, _NORM_DECAY))
        self._norm_mean.copy_(torch.where(accepted, mean, self._norm_mean))
        self._norms_seen.add_(accepted.float())

    @torch.no_grad()
    def step(self, learning_rate: float | Tensor, factors: Tensor, taken: Tensor, refused: Tensor) -> None:
        """Clip and step each part, where it is taken; gradients are then forgotten.

        factors: of its gradient. taken: 1, or 0 where it is refused, which is the opposite. P fp32 each, on the device.
        """
        decided = zip(factors.unbind(), taken.unbind(), refused.unbind(), strict=True)
        for (name, parameters), (factor, counted, left_out) in zip(self.parts.items(), decided, strict=True):
            held = [(p, p.grad, *m) for p, m in zip(parameters, self._moments[name], strict=True) if p.grad is not None]
            columns = [list(column) for column in zip(*held, strict=True)]
            # What torch.optim.AdamW does with `fused`; the class would import the compiler (1.5 s), used or not.
            torch._foreach_add_(columns[-1], [counted] * len(held))
            weights, gradients, means, squares, steps = in_pieces(*columns)
            torch._foreach_mul_(gradients, factor)
            torch._fused_adamw_(
                weights,
                gradients,
                means,
                squares,
                [],
                steps,
                amsgrad=False,
                lr=learning_rate,
                beta1=_BETAS[0],
                beta2=_BETAS[1],
                weight_decay=self._weight_decay,
                eps=1e-8,
                maximize=False,
                found_inf=left_out,
            )
        self.forget_gradients()

    def forget_gradients(self) -> None:
        """Leave every part without a gradient."""
        for parameters in self.parts.values():
            for parameter in parameters:
                parameter.grad = None

    def capture(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on."""
        tensors = {"norm_mean": self._norm_mean, "norms_seen": self._norms_seen}
        for name, moments in self._moments.items():
            for i, values in enumerate(moments):
                tensors |= {f"{name}.{i}.{key}": value for key, value in zip(_MOMENTS, values, strict=True)}
        return tensors

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what was captured."""
        for name, value in self.capture().items():
            value.copy_(tensors[name])


def _gradients(parameters: list[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
