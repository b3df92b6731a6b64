from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from lapcvae.config import load
from lapcvae.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    rate: float
    kind: Literal["a", "b", 1] = "a"

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError("`rate` must be above 0")


@dataclass(frozen=True)
class Outer:
    inner: Inner
    count: int = 3
    flag: bool = False
    name: str | None = None
    pair: tuple[int, int] = (1, 2)
    many: tuple[float, ...] = ()
    named: dict[str, Inner] = field(default_factory=dict)
    free: dict[str, Any] = field(default_factory=dict)


def loaded(tmp_path: Path, text: str, key: str = "outer") -> Outer:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return load(Outer, key, path)


def test_a_whole_section(tmp_path: Path) -> None:
    text = """
outer:
  inner: {rate: 1, kind: b}
  count: 4
  flag: true
  name: x
  pair: [5, 6]
  many: [1, 2.5]
  named: {k: {rate: 2.0}}
  free: {any: [thing]}
"""
    expected = Outer(Inner(1.0, "b"), 4, True, "x", (5, 6), (1.0, 2.5), {"k": Inner(2.0)}, {"any": ["thing"]})
    assert loaded(tmp_path, text) == expected


@dataclass(frozen=True)
class Switches:
    compile: Literal["auto", "off", "on"] = "auto"
    condition: Literal["rebuilt", "true"] = "rebuilt"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{compile: on, condition: true}", Switches("on", "true")),
        ("{compile: off, condition: 'true'}", Switches("off", "true")),
    ],
)
def test_a_word_that_yaml_takes_for_true_or_false_is_still_the_word(
    tmp_path: Path, text: str, expected: Switches
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"switches: {text}")
    assert load(Switches, "switches", path) == expected
    path.write_text("switches: {condition: false}")
    with pytest.raises(ConfigError, match=r"`switches\.condition` is False; choose one of 'rebuilt', 'true'"):
        load(Switches, "switches", path)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{inner: {rate: 1}, cuont: 4}", r"unknown parameter `outer\.cuont`; did you mean `count`"),
        ("{inner: {rate: 1, knd: a}}", r"unknown parameter `outer\.inner\.knd`; did you mean `kind`"),
        ("{inner: {rate: 1}, zzz: 1}", r"`outer\.zzz`; known here: inner, count"),
        ("{}", r"`outer\.inner` is missing; Outer needs it"),
        ("{inner: {rate: fast}}", r"`outer\.inner\.rate` must be a number, found str 'fast'"),
        ("{inner: {rate: 1e-3}}", r"write 1\.0e-3"),
        ("{inner: {rate: .inf}}", r"a finite number is needed"),
        ("{inner: {rate: true}}", r"must be a number, found bool"),
        ("{inner: {rate: 1}, count: 4.0}", r"`outer\.count` must be a whole number"),
        ("{inner: {rate: 1}, count: true}", r"`outer\.count` must be a whole number, found bool"),
        ("{inner: {rate: 1}, flag: 1}", r"`outer\.flag` must be true or false"),
        ("{inner: {rate: 1, kind: c}}", r"`outer\.inner\.kind` is 'c'; choose one of 'a', 'b', 1"),
        ("{inner: {rate: 1, kind: true}}", r"choose one of"),
        ("{inner: {rate: 1}, pair: [1]}", r"`outer\.pair` has 1 entries; 2 are needed"),
        ("{inner: {rate: 1}, pair: 1}", r"`outer\.pair` must be a list"),
        ("{inner: {rate: 1}, named: {k: {rate: x}}}", r"`outer\.named\.k\.rate` must be a number"),
        ("{inner: 3}", r"`outer\.inner` must be a mapping"),
        ("{inner: {rate: -1}}", r"`outer\.inner`: `rate` must be above 0"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, section: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loaded(tmp_path, f"outer: {section}")


def test_files_that_are_no_parameters(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not found; run from the project's top folder"):
        load(Outer, "outer", tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="not valid YAML"):
        loaded(tmp_path, "outer: [")
    with pytest.raises(ConfigError, match="expected a mapping"):
        loaded(tmp_path, "- 1")
    with pytest.raises(ConfigError, match=r"`outer` is missing: the top level has no `outer`; did you mean `outr`"):
        loaded(tmp_path, "outr: {}")


def test_the_projects_own_parameters_are_read_by_their_owners() -> None:
    from lapcvae.evaluation.evaluate import EvaluationConfig
    from lapcvae.pyramid.laplacian import PyramidConfig, level_sides

    params = Path(__file__).parents[1] / "params.yaml"
    pyramid = load(PyramidConfig, "pyramid", params)
    assert load(EvaluationConfig, "evaluation", params).batch > 0
    levels = load(dict[str, Any], "levels", params)
    assert len(levels) == len(level_sides(load(int, "align.size_px", params), pyramid.coarsest))
