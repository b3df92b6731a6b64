"""What a retraining is asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from lapcvae.data.inbox import IntakeConfig
from lapcvae.evaluation.drift import Drift, DriftConfig
from pipelines.contest import Contest

RunStage = Callable[[str, float], None]
"""Brings one stage up to date before a deadline (of `time.monotonic()`)."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class RetrainConfig:
    """The `retrain` section of params.yaml.

    min_new: photographs taken in since the last training before there is another one. deadline_s: seconds that a
    retraining may take. warm_start: whether levels begin with the champion's weights.
    """

    min_new: int
    deadline_s: float
    warm_start: bool
    intake: IntakeConfig
    drift: DriftConfig

    def __post_init__(self) -> None:
        if self.min_new < 1 or self.deadline_s <= 0:
            raise ValueError("`min_new` must be at least 1, `deadline_s` above 0")


@dataclass
class Outcome:
    """What a run did. `status`: `busy` (another run goes on), `nothing`, `waiting` (too few new photographs),
    `postponed` (trained, MLflow away: the gate is held by the next run), `promoted`, `rejected`, `failed`.
    """

    status: Literal["busy", "nothing", "waiting", "postponed", "promoted", "rejected", "failed"] = "nothing"
    lines: list[str] = field(default_factory=list)
    batch: dict[str, Any] | None = None
    drift: Drift | None = None
    contest: Contest | None = None
    ran: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the record; no clock times."""
        found: dict[str, Any] = {"status": self.status, "lines": self.lines, "batch": self.batch, "ran": self.ran}
        found["drift"] = None if self.drift is None else self.drift.as_dict()
        found["gate"] = None if self.contest is None else self.contest.verdict.as_dict()
        if self.contest is not None:
            found |= {"challenger": self.contest.challenger, "champion": self.contest.now}
        return found
