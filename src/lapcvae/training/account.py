"""What is made of an update once its gradients are known: judged, entered in the running sums, and not yet stepped."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lapcvae.training.meter import Meter
from lapcvae.training.optimiser import Optimiser
from lapcvae.training.processes import Processes


class Decision(NamedTuple):
    """What becomes of each part of an update: P fp32 each.

    factors: what its gradient is multiplied with, to be clipped. taken, refused: 1 or 0, one the other's opposite.
    """

    factors: Tensor
    taken: Tensor
    refused: Tensor


class Account:
    """Some fifty operations on single numbers, which for the compiler are one kernel or two."""

    def __init__(self, optimiser: Optimiser, meter: Meter, processes: Processes) -> None:
        self._optimiser, self._meter, self._processes = optimiser, meter, processes

    @torch.no_grad()
    def decide(self, minimised: list[Tensor], norms: list[Tensor], sums: dict[str, Tensor]) -> Decision:
        """Judge an update by its parts' losses (0-d each) and their gradients' norms, a vector a part; enter it.

        A part whose gradient is all 0 waits, as its loss says: its moments would carry it on.
        """
        whole = torch.stack([torch.linalg.vector_norm(of_part) for of_part in norms])
        norm, usual = self._optimiser.judge(whole)
        accepted = self._processes.any((~(torch.stack(minimised).isfinite().all() & usual)).float()) == 0
        self._meter.add({**sums, "gradient_norm": norm}, accepted)
        self._optimiser.remember(norm, accepted)
        taken = (accepted & (whole > 0)).float()
        return Decision(self._optimiser.factors(whole), taken, 1.0 - taken)
