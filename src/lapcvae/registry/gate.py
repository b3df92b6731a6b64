"""The gate: whether a challenger replaces the champion. Numbers in, a verdict with its numbers out; no MLflow here."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lapcvae.errors import ConfigError
from lapcvae.evaluation.bootstrap import Interval, paired_difference
from lapcvae.evaluation.trial import Trial

Decision = Literal["promoted", "rejected"]


@dataclass(frozen=True)
class GateConfig:
    """The `gate` section of params.yaml. Every measure is one of `evaluation.trial`, lower is better.

    primary: what the challenger must be better in, by more than `min_gain`, with `confidence`. margins: guards; the
    challenger must not be worse by more than this with the same confidence (measures a photograph) or as it is
    (measures a model). max_latency_ratio: of challenger to champion. limits: of the first champion, when there is none
    to compare with. A guard that cannot be taken here (`Trial.absent`) is not asked, and the verdict says so.
    """

    primary: str
    confidence: float
    resamples: int
    min_gain: float
    margins: dict[str, float]
    max_latency_ratio: float
    limits: dict[str, float]

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1 or self.resamples < 100 or self.min_gain < 0:
            raise ValueError("`confidence` must be 0.5 to 1, `resamples` at least 100, `min_gain` at least 0")
        if self.primary not in self.limits:
            raise ValueError(f"`limits` must hold `{self.primary}`, the primary measure")


@dataclass(frozen=True)
class Check:
    """One line of a verdict: what was asked of a measure, what was found, whether it holds. interval: of the paired
    difference challenger - champion, where there is one.
    """

    measure: str
    asked: str
    champion: float | None
    challenger: float
    holds: bool
    interval: Interval | None = None


@dataclass(frozen=True)
class Verdict:
    """decision, the one sentence that explains it, and every check; the primary measure comes first. absent: guards
    that could not be asked, and why.
    """

    decision: Decision
    reason: str
    checks: tuple[Check, ...] = field(default=())
    absent: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; an infinite end of an interval becomes null."""
        return _plain(asdict(self))


def decide(champion: Trial, challenger: Trial, groups: list[str], config: GateConfig, seed: int) -> Verdict:
    """Compare two models measured on the same photographs of the people `groups`. A pure function."""

    def difference(name: str) -> Interval:
        return paired_difference(
            challenger.columns[name], champion.columns[name], groups, config.confidence, config.resamples, seed
        )

    old, new = champion.means(), challenger.means()
    absent = {name: why for name, why in (champion.absent | challenger.absent).items() if name in config.margins}
    name = config.primary
    _known(name, new)
    found = difference(name)
    better = found.high < -config.min_gain
    asked = f"better than the champion by more than {config.min_gain:g}"
    checks = [Check(name, asked, old[name], new[name], better, found)]
    for name, margin in config.margins.items():
        asked = f"not worse by more than {margin:g}"
        if name in challenger.columns and name not in absent:
            found = difference(name)
            checks.append(Check(name, asked, old[name], new[name], found.high <= margin, found))
        elif name not in absent:
            _known(name, new)
            checks.append(Check(name, asked, old[name], new[name], new[name] - old[name] <= margin))
    if "latency_s" in old and "latency_s" in new:
        asked = f"at most {config.max_latency_ratio:g} times the champion's"
        holds = new["latency_s"] <= config.max_latency_ratio * old["latency_s"]
        checks.append(Check("latency_s", asked, old["latency_s"], new["latency_s"], holds))
    return _conclude(checks, f"better at {config.confidence:.0%} confidence, and no guard is broken", absent)


def first(challenger: Trial, config: GateConfig) -> Verdict:
    """Hold a challenger against the absolute limits: there is no champion."""
    new = challenger.means()
    _known(config.primary, new)
    checks = []
    absent = {name: why for name, why in challenger.absent.items() if name in config.limits}
    for name in sorted(set(config.limits) - set(absent), key=lambda name: (name != config.primary, name)):
        _known(name, new)
        limit = config.limits[name]
        checks.append(Check(name, f"at most {limit:g}", None, new[name], new[name] <= limit))
    return _conclude(checks, "the first champion: within the absolute limits", absent)


def _conclude(checks: list[Check], praise: str, absent: dict[str, str]) -> Verdict:
    broken = [check for check in checks if not check.holds]
    if not broken:
        said = f"; not asked: {', '.join(sorted(absent))}" if absent else ""
        return Verdict("promoted", praise + said, tuple(checks), absent)
    return Verdict("rejected", "; ".join(_sentence(check) for check in broken), tuple(checks), absent)


def _sentence(check: Check) -> str:
    found = (
        f"{check.challenger:.4g}" if check.champion is None else f"{check.challenger:.4g} against {check.champion:.4g}"
    )
    if check.interval is not None:
        found += f", difference {check.interval.mean:+.3g} ({check.interval.low:+.3g} to {check.interval.high:+.3g})"
    return f"{check.measure} must be {check.asked}: {found}"


def _known(name: str, measures: dict[str, float]) -> None:
    if name not in measures:
        raise ConfigError(f"params.yaml: `gate` names the measure `{name}`, which is none of {', '.join(measures)}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
