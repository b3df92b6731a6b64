"""What `make weeks` says must hold is looked for: a story in which it does not is found out."""

from dataclasses import replace
from typing import Any

import pytest

from pipelines.weeks import Step, checks, render

NONE: dict[str, Any] = {"status": "nothing", "batch": None, "gate": None, "drift": None}
PROMOTED = NONE | {"gate": {"decision": "promoted", "checks": []}}
ASIDE = NONE | {"batch": {"status": "set aside"}}
REJECTED = NONE | {"gate": {"decision": "rejected", "checks": []}, "batch": {"status": "taken"}}


def step(title: str, record: dict[str, Any], champion: int | None, photographs: int, data: str) -> Step:
    return Step(title, "photographs", 1.0, record, champion, photographs, data, "the test set", ["a line"])


STORY = [
    step("Week 1: the first champion", PROMOTED, 1, 400, "a"),
    step("Week 2: good photographs", REJECTED, 1, 600, "b"),
    step("Week 2, later: trained longer", PROMOTED, 3, 600, "b"),
    step("Week 3: a bad batch", ASIDE, 3, 600, "b"),
    step("Week 3, later: a rollback", NONE | {"status": "rolled back"}, 1, 600, "b"),
    step("Week 4: nothing new", NONE, 1, 600, "b"),
]


def test_a_story_as_it_should_be_holds() -> None:
    assert [line for line, holds in checks(STORY) if not holds] == []
    page = render(STORY, 730, 100)
    assert "does not hold" not in page
    assert '<span class="tag setaside">set aside</span>' in page


@pytest.mark.parametrize(
    ("which", "change", "broken"),
    [
        (0, {"champion": None}, "Week 1 ended with a champion"),
        (1, {"photographs": 400}, "Week 2 grew the data set"),
        (1, {"champion": 2}, "Week 2: good photographs: rejected, and the champion is accordingly"),
        (2, {"champion": 1}, "Week 2, later: trained longer: promoted, and the champion is accordingly"),
        (3, {"data": "c"}, "The bad batch left the data set as it was, to the byte"),
        (3, {"record": NONE | {"batch": {"status": "taken"}}}, "The bad batch was set aside whole"),
        (3, {"champion": 4}, "The bad batch left the champion where it was"),
        (3, {"test": "another"}, "The frozen test set never changed"),
        (4, {"champion": 3}, "The rollback brought another champion back"),
        (5, {"champion": 3}, "The next run let the rollback stand"),
    ],
)
def test_a_story_as_it_should_not_be_is_found_out(which: int, change: dict[str, Any], broken: str) -> None:
    told = [replace(one, **change) if i == which else one for i, one in enumerate(STORY)]
    assert broken in [line for line, holds in checks(told) if not holds]
    assert "does not hold" in render(told, 730, 100)
