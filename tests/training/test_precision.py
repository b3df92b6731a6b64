"""What `precision: auto` chooses, and that a choice stays."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from lapcvae.errors import StoppedError
from lapcvae.training.checkpoint import Checkpoints
from lapcvae.training.loop import train
from lapcvae.training.precision import TURNS, WORTH_UPDATES, Measured, speedup, use_bf16
from lapcvae.training.processes import Processes
from lapcvae.training.settings import Precision
from tests.training.made import CPU, Small


class Steps:
    """A step that takes these seconds in fp32 and in bf16 by its own clock, and what was asked of it."""

    def __init__(self, fp32: float, bf16: float) -> None:
        self.seconds, self.asked = {False: fp32, True: bf16}, list[bool]()
        self.now = 0.0

    def __call__(self, bf16: bool) -> None:
        """Take them."""
        self.asked.append(bf16)
        self.now += self.seconds[bf16]

    def clock(self) -> float:
        """Seconds that steps have taken so far."""
        return self.now


def choose(steps: Steps, kept: Path | None = None, what: str = "a network", precision: Precision = "auto") -> bool:
    return use_bf16(precision, CPU, WORTH_UPDATES, Measured(steps, what, kept, steps.clock))


def test_bf16_is_chosen_where_it_is_faster() -> None:
    assert choose(Steps(0.04, 0.004))
    assert not choose(Steps(0.004, 0.04))
    assert choose(Steps(1.0, 0.99))
    assert not choose(Steps(1.0, 1.01))


def test_what_is_asked_for_is_not_measured() -> None:
    steps = Steps(0.0, 0.0)
    assert choose(steps, precision="bf16")
    assert not choose(steps, precision="fp32")
    assert not use_bf16("auto", CPU, WORTH_UPDATES - 1, Measured(steps, "a short training"))
    assert not steps.asked


@pytest.mark.parametrize(("bf16", "turns"), [(0.05, TURNS[0]), (0.0005, TURNS[0]), (0.0009, TURNS[1])])
def test_what_is_clear_is_soon_left(bf16: float, turns: int) -> None:
    steps = Steps(0.001, bf16)
    assert speedup(steps, steps.clock) == pytest.approx(0.001 / bf16)
    assert steps.asked == [False, True] * (1 + turns)


@pytest.mark.parametrize("bf16", [0.019, 0.021])
@pytest.mark.parametrize("slowed", [False, True])
@pytest.mark.parametrize("free", range(1, TURNS[1] + 1))
def test_busy_moments_do_not_decide(bf16: float, slowed: bool, free: int) -> None:
    """All turns of one arithmetic are slowed, so that it looks the slower, but one."""
    steps = Steps(0.02, bf16)

    def step(in_bf16: bool) -> None:
        steps(in_bf16)
        turn = (len(steps.asked) - 1) // 2
        steps.now += 0.005 if turn != free and in_bf16 == slowed else 0.0

    assert speedup(step, steps.clock) == pytest.approx(0.02 / bf16)


def test_what_else_the_program_does_is_waited_for_before_anything_is_timed(tmp_path: Path) -> None:
    steps, waited = Steps(0.02, 0.01), list[int]()
    for _ in range(2):
        measured = Measured(
            steps, "a network", tmp_path / "kept.json", steps.clock, lambda: waited.append(len(steps.asked))
        )
        assert use_bf16("auto", CPU, WORTH_UPDATES, measured)
    assert waited == [0], "what is known is not measured, and nothing waits for it"


def test_making_kernels_does_not_count() -> None:
    """The first step in bf16 can take longer than ten later ones."""
    steps = Steps(0.02, 0.01)

    def step(bf16: bool) -> None:
        steps(bf16)
        steps.now += 0.5 if steps.asked == [False, True] else 0.0

    assert speedup(step, steps.clock) == pytest.approx(2)


def test_a_choice_is_kept_for_the_same_network_and_made_anew_for_another(tmp_path: Path) -> None:
    kept = tmp_path / "cache/precision.json"
    assert choose(Steps(0.04, 0.004), kept)
    slower = Steps(0.004, 0.04)
    assert choose(slower, kept), "the machine's choice does not flip"
    assert not slower.asked
    assert not choose(slower, kept, "another network")
    assert sorted(entry["bf16"] for entry in json.loads(kept.read_text()).values()) == [False, True]


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1}', '{"x": {"bf16": true}}', "\x00"])
def test_a_damaged_file_of_choices_is_made_anew(tmp_path: Path, content: str) -> None:
    kept = tmp_path / "precision.json"
    kept.write_text(content)
    assert choose(Steps(0.04, 0.004), kept)
    assert len(json.loads(kept.read_text())) == 1


def test_measuring_leaves_no_trace_in_what_is_trained(small: Small, tmp_path: Path) -> None:
    """Whatever is chosen, a run that measured ends as one that was told: the same bytes, batch norm's too."""
    settings = dataclasses.replace(small.training, updates=WORTH_UPDATES, log_interval=50, precision="auto")
    style = {"network": "plain", "latent": "vector"}
    measured, told = small.trainable(2, **style), small.trainable(2, **style)
    result = train(measured, small.rows, settings, 0, Processes(CPU), "test", choices=tmp_path / "precision.json")
    assert (tmp_path / "precision.json").is_file()
    asked = dataclasses.replace(settings, precision=result.precision)  # type: ignore[arg-type]
    assert train(told, small.rows, asked, 0, Processes(CPU), "test").precision == result.precision
    for name, value in measured.state_dict().items():
        assert torch.equal(value, told.state_dict()[name]), name


@pytest.mark.parametrize("bf16", [False, True])
def test_a_run_that_goes_on_computes_as_it_did(small: Small, tmp_path: Path, bf16: bool) -> None:
    """The checkpoint's arithmetic holds, whatever the machine's choice has become since."""
    settings = dataclasses.replace(small.training, updates=WORTH_UPDATES, precision="auto", checkpoint_interval=10)
    choices = tmp_path / "precision.json"
    unbroken = small.trainable(2)
    asked = dataclasses.replace(settings, precision="bf16" if bf16 else "fp32")
    train(unbroken, small.rows, asked, 0, Processes(CPU), "test")

    def choice(of: bool) -> None:
        for entry in (tree := json.loads(choices.read_text())).values():
            entry["bf16"] = of
        choices.write_text(json.dumps(tree))

    def stop(row: dict[str, float]) -> None:
        if row["update"] == 30:
            raise StoppedError("test: stopped", 15)

    train(small.trainable(2), small.rows, settings, 0, Processes(CPU), "test", choices=choices)  # makes the choice
    choice(bf16)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with pytest.raises(StoppedError):
        train(
            small.trainable(2), small.rows, settings, 0, Processes(CPU), "test", Checkpoints(folder, "x"), stop, choices
        )
    choice(not bf16)
    resumed = small.trainable(2)
    result = train(resumed, small.rows, settings, 0, Processes(CPU), "test", Checkpoints(folder, "x"), choices=choices)
    assert result.precision == ("bf16" if bf16 else "fp32")
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, unbroken.state_dict()[name]), name
