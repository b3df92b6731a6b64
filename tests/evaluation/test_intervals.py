import numpy as np
import pytest

from lapcvae.evaluation.intervals import Against, summary


def test_the_mean_lies_in_its_interval_and_one_person_has_none() -> None:
    values = np.random.default_rng(0).normal(5, 1, 60)
    found = summary(values, np.arange(60).astype(str))
    assert found["ci95_low"] < found["mean"] < found["ci95_high"]
    assert found["std"] == pytest.approx(values.std())
    # Three photographs each of twenty people say less than sixty people.
    grouped = np.repeat(values[:20], 3)
    fewer = summary(grouped, np.repeat(np.arange(20), 3).astype(str))
    assert fewer["ci95_high"] - fewer["ci95_low"] > 1.2 * (found["ci95_high"] - found["ci95_low"])
    assert set(summary(values, np.array(["one"] * 60))) == {"mean", "std"}


def test_a_small_difference_on_the_same_photographs_is_sure() -> None:
    random = np.random.default_rng(0)
    other, people = random.normal(20, 6, 80), np.arange(80).astype(str)
    ours = other - 0.5 + random.normal(0, 0.3, 80)
    found = Against({"rmse": ours, "only_ours": ours}, {"rmse": other}, people).differences()
    assert set(found) == {"rmse"}
    assert found["rmse"]["ci95_high"] < 0
    assert found["rmse"]["mean"] == pytest.approx((ours - other).mean())
    assert found["rmse"]["ratio"] == pytest.approx(ours.mean() / other.mean())
    alone = summary(ours, people)
    assert alone["ci95_high"] > other.mean()  # unpaired, it would not be
