from pathlib import Path

import numpy as np
import pytest

from lapcvae.config import load
from lapcvae.errors import ConfigError
from lapcvae.evaluation.trial import FEATURE_DISTANCE, Trial
from lapcvae.registry.gate import GateConfig, decide, first

ROOT = Path(__file__).parents[2]
CONFIG = GateConfig(
    primary="rmse", confidence=0.95, resamples=500, min_gain=0.0,
    margins={"bits": 0.05, "inactive_share": 0.1}, max_latency_ratio=1.5, limits={"rmse": 20.0, "inactive_share": 0.9},
)  # fmt: skip
PEOPLE = [str(i // 2) for i in range(120)]


def trial(rmse: float, bits: float = 5.0, inactive: float = 0.2, latency: float = 0.01, seed: int = 0) -> Trial:
    faces, own = np.random.default_rng(9), np.random.default_rng(seed)
    difficulty = faces.normal(0, 3, 120)
    columns = {
        "rmse": rmse + difficulty + own.normal(0, 0.3, 120),
        "bits": bits + difficulty / 100 + own.normal(0, 0.01, 120),
    }
    return Trial(columns, {"inactive_share": inactive, "latency_s": latency})


def test_better_with_confidence_is_promoted() -> None:
    verdict = decide(trial(15), trial(14.7, seed=1), PEOPLE, CONFIG, 0)
    assert verdict.decision == "promoted"
    primary = verdict.checks[0]
    assert primary.measure == "rmse"
    assert primary.interval is not None
    assert primary.interval.high < 0
    assert primary.interval.groups == 60


@pytest.mark.parametrize("rmse", [15.0, 15.4])
def test_not_better_is_rejected_with_the_numbers(rmse: float) -> None:
    verdict = decide(trial(15), trial(rmse, seed=1), PEOPLE, CONFIG, 0)
    assert verdict.decision == "rejected"
    assert "rmse must be better than the champion" in verdict.reason
    assert f"{verdict.checks[0].challenger:.4g} against {verdict.checks[0].champion:.4g}" in verdict.reason


def test_the_same_model_again_is_not_better() -> None:
    assert decide(trial(15), trial(15), PEOPLE, CONFIG, 0).decision == "rejected"


@pytest.mark.parametrize(
    ("worse", "named"),
    [({"bits": 5.2}, "bits"), ({"inactive": 0.4}, "inactive_share"), ({"latency": 0.02}, "latency_s")],
)
def test_a_broken_guard_rejects_a_better_model(worse: dict[str, float], named: str) -> None:
    verdict = decide(trial(15), trial(13, seed=1, **worse), PEOPLE, CONFIG, 0)
    assert verdict.decision == "rejected"
    assert [check.measure for check in verdict.checks if not check.holds] == [named]


def _measured(**worse: float) -> Trial:
    """A model measured in all that the committed gate asks; `worse` is added to the mean of a measure."""
    random = np.random.default_rng(3)
    means = {"rmse_posterior_mean": 15.0, "bits_per_dim": 5.9, "dissimilarity": 0.2, "sharpness_error": 1.0}
    means[FEATURE_DISTANCE] = 0.3
    columns = {name: mean + random.normal(0, 0.001, 120) + worse.get(name, 0) for name, mean in means.items()}
    scalars = {"inactive_share": 0.1, "latency_s": 0.01}
    return Trial(columns, {name: value + worse.get(name, 0) for name, value in scalars.items()})


@pytest.mark.parametrize(
    "guard",
    [FEATURE_DISTANCE, "bits_per_dim", "dissimilarity", "sharpness_error", "inactive_share", "latency_s"],
)
def test_each_guard_of_the_committed_gate_keeps_out_what_is_better_in_all_else(guard: str) -> None:
    config = load(GateConfig, "gate", ROOT / "params.yaml")
    assert set(config.margins) == set(_measured().means()) - {config.primary, "latency_s"}
    margin = config.margins.get(guard, 0.01 * (config.max_latency_ratio - 1))
    better = {"rmse_posterior_mean": -1.0}
    assert decide(_measured(), _measured(**better), PEOPLE, config, 0).decision == "promoted"
    assert decide(_measured(), _measured(**better, **{guard: 0.9 * margin}), PEOPLE, config, 0).decision == "promoted"
    verdict = decide(_measured(), _measured(**better, **{guard: 1.1 * margin}), PEOPLE, config, 0)
    assert verdict.decision == "rejected"
    assert [check.measure for check in verdict.checks if not check.holds] == [guard]


def test_the_gain_asked_for_must_be_exceeded_with_confidence() -> None:
    from dataclasses import replace

    assert decide(trial(15), trial(14.7, seed=1), PEOPLE, replace(CONFIG, min_gain=0.5), 0).decision == "rejected"
    assert decide(trial(15), trial(14.0, seed=1), PEOPLE, replace(CONFIG, min_gain=0.5), 0).decision == "promoted"


def test_of_one_person_nothing_is_concluded() -> None:
    assert decide(trial(15), trial(10, seed=1), ["a"] * 120, CONFIG, 0).decision == "rejected"


def test_the_first_champion_must_keep_the_absolute_limits() -> None:
    assert first(trial(15), CONFIG).decision == "promoted"
    verdict = first(trial(25, inactive=0.95), CONFIG)
    assert verdict.decision == "rejected"
    assert "rmse must be at most 20" in verdict.reason
    assert "inactive_share must be at most 0.9" in verdict.reason


def test_verdict_is_plain_json_even_where_an_interval_is_infinite() -> None:
    import json

    text = json.dumps(decide(trial(15), trial(10, seed=1), ["a"] * 120, CONFIG, 0).as_dict(), allow_nan=False)
    assert json.loads(text)["checks"][0]["interval"]["high"] is None


def test_an_unknown_measure_is_named() -> None:
    from dataclasses import replace

    with pytest.raises(ConfigError, match="`sharpnes`, which is none of rmse, bits"):
        decide(trial(15), trial(14), PEOPLE, replace(CONFIG, margins={"sharpnes": 0.1}), 0)


def test_a_guard_that_cannot_be_measured_here_is_not_asked_and_the_record_says_so() -> None:
    from dataclasses import replace

    from lapcvae.registry.card import table

    config = replace(CONFIG, margins=CONFIG.margins | {"feature_distance": 0.02})
    champion, challenger = (
        replace(found, absent={"feature_distance": "no weights"}) for found in (trial(15), trial(14, seed=1))
    )
    verdict = decide(champion, challenger, PEOPLE, config, 0)
    assert verdict.decision == "promoted"
    assert verdict.reason.endswith("not asked: feature_distance")
    assert verdict.as_dict()["absent"] == {"feature_distance": "no weights"}
    assert "feature_distance" not in [check.measure for check in verdict.checks]
    assert "not asked: no weights" in table(verdict)[-1]


def test_a_primary_measure_that_cannot_be_measured_here_decides_nothing() -> None:
    from dataclasses import replace

    broken = replace(trial(15), absent={"fd": "no weights"})
    config = replace(CONFIG, primary="fd", limits={"fd": 1.0})
    with pytest.raises(ConfigError, match="the measure `fd`"):
        first(broken, config)
    with pytest.raises(ConfigError, match="the measure `fd`"):
        decide(broken, broken, PEOPLE, config, 0)
