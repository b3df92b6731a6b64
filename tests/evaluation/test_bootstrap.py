import numpy as np
import pytest

from lapcvae.evaluation import bootstrap
from lapcvae.evaluation.bootstrap import interval, paired_difference


def test_mean_is_the_plain_mean_of_photographs() -> None:
    found = interval(np.array([1.0, 2.0, 3.0, 10.0]), ["a", "a", "a", "b"])
    assert found.mean == 4.0
    assert (found.photographs, found.groups) == (4, 2)
    assert found.low <= found.mean <= found.high


def test_width_is_that_of_the_normal_theory_where_each_person_has_one_photograph() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    found = interval(values, [str(i) for i in range(400)], resamples=4000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(400), rel=0.06)


def test_many_photographs_of_few_people_are_few_observations() -> None:
    random = np.random.default_rng(2)
    people = np.repeat(np.arange(20), 25)
    values = random.normal(0, 1, 20)[people] + random.normal(0, 0.1, 500)
    by_person, by_photograph = interval(values, people), interval(values, np.arange(500))
    assert by_person.high - by_person.low > 3 * (by_photograph.high - by_photograph.low)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    random, hits = np.random.default_rng(3), 0
    for trial in range(300):
        people = np.repeat(np.arange(40), random.integers(1, 6, 40))
        values = random.normal(0, 1, 40)[people] + random.normal(0, 1, len(people))
        found = interval(values, people, confidence=0.9, resamples=400, seed=trial)
        hits += found.low <= 0 <= found.high
    assert 0.83 <= hits / 300 <= 0.95


def test_pairing_sees_a_small_steady_difference_under_a_large_spread() -> None:
    random = np.random.default_rng(4)
    champion = random.normal(15, 4, 200)
    challenger = champion - 0.2 + random.normal(0, 0.3, 200)
    people = np.repeat(np.arange(100), 2)
    found = paired_difference(challenger, champion, people)
    assert found.below_zero
    assert not found.above_zero
    assert found.mean == pytest.approx(-0.2, abs=0.06)
    assert not paired_difference(champion, champion, people).below_zero
    assert paired_difference(champion, challenger, people).above_zero


def test_equal_arguments_give_equal_intervals_in_pieces_too(monkeypatch: pytest.MonkeyPatch) -> None:
    values, people = np.arange(30.0), np.repeat(np.arange(10), 3)
    whole = interval(values, people, seed=7)
    monkeypatch.setattr(bootstrap, "_CHUNK", 1000)
    assert interval(values, people, seed=7) == whole
    assert interval(values, people, seed=8) != whole


def test_one_person_proves_nothing() -> None:
    found = paired_difference(np.zeros(9), np.ones(9), ["a"] * 9)
    assert found.mean == -1.0
    assert not found.below_zero


@pytest.mark.parametrize(
    ("values", "groups"), [([], []), ([1.0], ["a", "b"]), ([np.nan, 1.0], ["a", "b"]), ([np.inf], ["a"])]
)
def test_what_has_no_mean_is_refused(values: list[float], groups: list[str]) -> None:
    with pytest.raises(ValueError, match=r"one a photograph|finite"):
        interval(np.array(values), groups)


def test_other_photographs_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="same photographs"):
        paired_difference(np.zeros(3), np.zeros(4), ["a"] * 3)
