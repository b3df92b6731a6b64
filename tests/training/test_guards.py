"""Training that goes wrong: updates passed over, returns to a checkpoint, a bounded number of them, collapse."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lapcvae.errors import TrainingError
from lapcvae.training.checkpoint import Checkpoints
from lapcvae.training.guards import all_finite
from lapcvae.training.loop import train
from lapcvae.training.processes import Processes
from lapcvae.training.result import TrainingResult
from lapcvae.training.trainable import LevelTraining, Terms
from tests.training.made import CPU, Small


class Bad(LevelTraining):
    """A level whose batches of chosen updates give a loss times `factor`, the first `times` times each."""

    def __init__(self, small: Small, updates: set[int], factor: float, times: int = 1000) -> None:
        level = small.trainable(2)
        super().__init__(level.level, level.arrays, level.kind)
        self.bad, self.factor, self.met, self.times = updates, factor, dict.fromkeys(updates, 0), times

    def losses(self, batch_terms: Terms, update: int) -> dict[str, Tensor]:
        """The level's own, spoilt."""
        loss = super().losses(batch_terms, update)["model"]
        if update in self.bad and self.met[update] < self.times:
            self.met[update] += 1
            return {"model": loss * self.factor}
        return {"model": loss}


def run(small: Small, trainable: LevelTraining, checkpoints: Checkpoints | None = None) -> TrainingResult:
    settings = dataclasses.replace(small.training, updates=60, log_interval=10, checkpoint_interval=10)
    return train(trainable, small.rows, settings, 0, Processes(CPU), "test", checkpoints)


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 1e12])
def test_a_bad_update_is_passed_over_and_counted(small: Small, factor: float) -> None:
    trainable = Bad(small, {30, 42}, factor)
    result = run(small, trainable)
    assert (result.passed_over, result.rollbacks) == (2, 0)
    assert all_finite(trainable.state_dict())
    assert all(row["gradient_norm"] < 1e6 for row in result.curve)
    assert result.curve[-1]["val_loss_nats"] < result.curve[0]["val_loss_nats"]


def test_passing_over_leaves_weights_as_they_were(small: Small) -> None:
    """Every update but the first is bad, so training ends where one update led: only the average has moved on."""
    once, again = Bad(small, set(), 1), Bad(small, {1, 2, 3}, float("nan"))
    settings = dataclasses.replace(small.training, ema_half_life_images=0, warmup_updates=0)
    for trainable, updates in ((once, 1), (again, 4)):
        train(trainable, small.rows, dataclasses.replace(settings, updates=updates), 0, Processes(CPU), "test")
    for name, value in once.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_divergence_returns_to_the_last_good_checkpoint_with_a_lower_rate(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainable = Bad(small, set(range(22, 28)), float("nan"), times=1)
    result = run(small, trainable, Checkpoints(tmp_path, "x"))
    assert (result.rollbacks, result.passed_over) == (1, 6)
    assert "6 updates in a row had an exploding or non-finite loss or gradient at update 30" in capsys.readouterr().err
    assert [row["update"] for row in result.curve] == [10, 20, 30, 40, 50, 60]
    unbroken = run(small, Bad(small, set(), 1))
    for found, whole, scale in zip(result.curve, unbroken.curve, [1, 1, 0.5, 0.5, 0.5, 0.5], strict=True):
        assert found["learning_rate"] == pytest.approx(scale * whole["learning_rate"])
    assert {path.stem for path in tmp_path.glob("*.json")} == {"01-000000040", "01-000000050", "01-000000060"}


def test_an_exploding_loss_is_returned_from(small: Small, capsys: pytest.CaptureFixture[str]) -> None:
    class Exploding(Bad):
        def forward(self, packed: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Terms:
            terms = super().forward(packed, noise)
            if self.training and self.calls in range(33, 36):
                terms["distortion_nats"] = terms["distortion_nats"] + 1e5
            self.calls += self.training
            return terms

    trainable = Exploding(small, set(), 1)
    trainable.calls = 0  # type: ignore[assignment]
    assert run(small, trainable).rollbacks == 1
    assert "the loss has exploded" in capsys.readouterr().err


def test_giving_up_is_bounded_and_the_next_start_is_a_new_one(small: Small, tmp_path: Path) -> None:
    trainable = Bad(small, {15, 16, 17, 18, 19}, float("inf"))
    with pytest.raises(
        TrainingError, match=r"5 updates in a row .* at update 20, and 3 returns .* lower `learning_rate"
    ):
        run(small, trainable, Checkpoints(tmp_path, "x"))
    assert trainable.met[15] == 4
    assert not list(tmp_path.glob("*.json"))


def test_collapse_is_said_once(small: Small, capsys: pytest.CaptureFixture[str]) -> None:
    collapsed = small.trainable(2, kl_weight=1e4)
    result = run(small, collapsed)
    said = capsys.readouterr().err
    assert said.count("posterior collapse: 32 of 32 latents carry less than 0.01 nats each") == 1
    assert (result.unused_latents, result.latents) == (32, 32)
    assert "collapse" not in said.replace("posterior collapse", "", 1)


class Deaf(LevelTraining):
    """A level whose decoder does not hear its latents, which keep the nats that they need not pay for."""

    def __init__(self, small: Small, free_bits: float) -> None:
        level = small.trainable(2, latent="vector", latent_size=8, free_bits=free_bits)
        super().__init__(level.level, level.arrays, level.kind)
        torch.nn.init.normal_(next(self.level.to_posterior.parameters()))
        for parameter in self.level.from_latent.parameters():
            torch.nn.init.zeros_(parameter.requires_grad_(False))


def test_free_bits_do_not_hide_a_collapse(small: Small, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(small, Deaf(small, free_bits=0.5))
    said = capsys.readouterr().err
    assert said.count("warning: test: posterior collapse: the 8 latents carry ") == 1
    assert "but tell the decoder nothing: with another photograph's, distortion changes by +0.000 nats" in said
    assert result.unused_latents == 0
    assert result.curve[-1]["rate_nats"] > 1


def test_without_validation_photographs_the_rate_alone_is_looked_at(
    small: Small, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = dataclasses.replace(small, rows={**small.rows, "val": small.rows["val"][:1]})
    run(alone, Deaf(alone, free_bits=0.5))
    run(alone, alone.trainable(2, kl_weight=1e4))
    said = capsys.readouterr().err
    assert said.count("posterior collapse") == said.count("latents carry less than 0.01 nats each") == 1


def test_a_level_that_uses_its_latents_is_not_called_collapsed(
    small: Small, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(small, small.trainable(2, kl_weight=0.01))
    assert result.unused_latents < result.latents
    assert "collapse" not in capsys.readouterr().err
