"""Running sums of a logging interval, on the device: nothing waits for the GPU until the interval ends."""

from __future__ import annotations

import torch
from torch import Tensor

from lapcvae.training.processes import over_processes


class Meter:
    """Sums of each term over the accepted updates of an interval, and what the guards have counted in it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.updates = 0
        self._names: list[str] = []
        self._scalars: Tensor | None = None
        self._vectors: dict[str, Tensor] = {}
        # Accepted updates, and updates passed over one after another: now, and the most so far.
        self._counts = torch.zeros(3, device=device)

    @torch.no_grad()
    def add(self, terms: dict[str, Tensor], accepted: Tensor) -> None:
        """Take in an update's terms; they count for nothing where `accepted` (a 0-d bool) is false.

        Only on the device: the caller counts `updates`. Tensors stay where they are.
        """
        names = [name for name, value in terms.items() if value.ndim == 0 and not name.startswith("_")]
        scalars = torch.stack([terms[name].detach().float() for name in names])
        if self._scalars is None:
            self._names, self._scalars = names, torch.zeros_like(scalars)
            self._vectors = {n: torch.zeros_like(v, dtype=torch.float32) for n, v in terms.items() if v.ndim == 1}
        self._scalars += torch.where(accepted, scalars, 0.0)
        for name, total in self._vectors.items():
            total += torch.where(accepted, terms[name].detach().float(), 0.0)
        taken = accepted.float()
        in_a_row = (self._counts[1] + 1) * (1 - taken)
        worst = torch.maximum(self._counts[2], in_a_row)
        self._counts.copy_(torch.stack([self._counts[0] + taken, in_a_row, worst]))

    def read(self) -> tuple[dict[str, float], dict[str, Tensor], int, int]:
        """(mean of each scalar, mean of each vector, accepted updates, most passed over in a row); then start anew.

        This waits for the device. Means are NaN where no update was accepted.
        """
        assert self._scalars is not None
        sums = [self._scalars, *self._vectors.values()]
        means = over_processes(torch.cat(sums) / self._counts[0], keep=True)
        # One copy from the device, which waits for it.
        whole = torch.cat([means, self._counts]).cpu()
        scalars, *vectors, counts = whole.split([len(total) for total in (*sums, self._counts)])
        accepted, _, worst = (int(v) for v in counts.tolist())
        self.reset()
        return (
            dict(zip(self._names, scalars.tolist(), strict=True)),
            dict(zip(self._vectors, vectors, strict=True)),
            accepted,
            worst,
        )

    def reset(self) -> None:
        """Start anew."""
        self.updates = 0
        torch._foreach_zero_(list(self._totals().values()))

    def capture(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """(tensors, plain state) that `restore` takes."""
        return self._totals(), {"updates": self.updates, "names": self._names}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, object]) -> None:
        """Go on from what was captured."""
        self.reset()
        self.updates = int(state["updates"])  # type: ignore[call-overload]
        if self._scalars is None and "scalars" in tensors:
            self._names = list(state["names"])  # type: ignore[call-overload]
            self._scalars = torch.zeros_like(tensors["scalars"], device=self._device)
            vectors = {n.removeprefix("vector."): v for n, v in tensors.items() if n.startswith("vector.")}
            self._vectors = {name: torch.zeros_like(v, device=self._device) for name, v in vectors.items()}
        for name, total in self._totals().items():
            if name in tensors:  # a checkpoint of before the first update has no terms
                total.copy_(tensors[name])

    def _totals(self) -> dict[str, Tensor]:
        totals = {"counts": self._counts, **{f"vector.{name}": v for name, v in self._vectors.items()}}
        return totals if self._scalars is None else {**totals, "scalars": self._scalars}
