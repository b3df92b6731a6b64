"""Splits depend on nothing but the group's name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapcvae.data.split import SplitConfig, split_of

CONFIG = SplitConfig(0.1, 0.1, "0")


def test_shares_are_those_asked_for() -> None:
    found = [split_of(f"person {i}", SplitConfig(0.2, 0.1, "0")) for i in range(20_000)]
    assert found.count("val") / 20_000 == pytest.approx(0.2, abs=0.01)
    assert found.count("test") / 20_000 == pytest.approx(0.1, abs=0.01)


@given(st.text())
def test_a_name_has_one_split_and_larger_shares_move_no_test_person_to_train(name: str) -> None:
    assert split_of(name, CONFIG) == split_of(name, CONFIG)
    if split_of(name, CONFIG) == "test":
        assert split_of(name, SplitConfig(0.1, 0.3, "0")) == "test"


def test_another_salt_is_another_split() -> None:
    names = [str(i) for i in range(200)]
    assert [split_of(n, CONFIG) for n in names] != [split_of(n, SplitConfig(0.1, 0.1, "1")) for n in names]


def test_shares_must_leave_something_for_train() -> None:
    with pytest.raises(ValueError, match="leave something"):
        SplitConfig(0.5, 0.5, "0")
