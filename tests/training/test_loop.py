import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from lapcvae.errors import TrainingError
from lapcvae.models.cascade import Cascade, run_level
from lapcvae.models.level import LevelCVAE
from lapcvae.training.arrays import LevelArrays
from lapcvae.training.ema import WeightAverage
from lapcvae.training.loop import train
from lapcvae.training.objective import terms
from lapcvae.training.processes import Processes
from lapcvae.training.rebuild import calibrate_sigma
from lapcvae.training.result import TrainingResult
from lapcvae.training.settings import TrainingSettings
from lapcvae.training.trainable import LevelTraining
from tests.training.made import CPU, Small

STYLES = [
    {},
    {"latent": "vector", "network": "plain", "sigma": "learned"},
    {"free_bits": 0.1, "kl_warmup": 20, "kl_weight": 0.5},
]


def run(
    small: Small, level: LevelCVAE, arrays: LevelArrays, settings: TrainingSettings | None = None
) -> TrainingResult:
    return train(
        LevelTraining(level, arrays, "burt"), small.rows, settings or small.training, 0, Processes(CPU), "test"
    )


@pytest.mark.parametrize("style", STYLES)
def test_training_lowers_the_loss_on_images_not_trained_on(small: Small, style: dict[str, object]) -> None:
    result = run(small, small.level(2, **style), small.arrays(2))
    assert [row["update"] for row in result.curve] == [10, 20, 30]
    assert result.curve[-1]["val_loss_nats"] < result.curve[0]["val_loss_nats"]
    for row in result.curve:
        assert row["loss_nats"] == pytest.approx(row["rate_nats"] + row["distortion_nats"])


def test_training_twice_gives_the_same_bytes(small: Small) -> None:
    coarse = small.level(2)
    levels = [small.level(1, condition_noise=0.5) for _ in range(2)]
    for level in levels:
        run(small, level, small.arrays(1, coarse))
    for name, value in levels[0].state_dict().items():
        assert torch.equal(value, levels[1].state_dict()[name]), name


def test_another_seed_gives_other_weights(small: Small) -> None:
    levels = [small.level(2) for _ in range(2)]
    for seed, level in enumerate(levels):
        train(LevelTraining(level, small.arrays(2), "burt"), small.rows, small.training, seed, Processes(CPU), "test")
    assert not torch.equal(levels[0].log_sigma, levels[1].log_sigma) or any(
        not torch.equal(a, b) for a, b in zip(levels[0].parameters(), levels[1].parameters(), strict=True)
    )


def test_training_from_the_packed_coarse_images_is_what_the_cascade_does(small: Small) -> None:
    coarse = small.level(2)
    run(small, coarse, small.arrays(2))
    calibrate_sigma(coarse, small.arrays(2), small.rows["train"], "burt", 0)
    arrays, fine = small.arrays(1, coarse), small.level(1).eval()
    rows = small.rows["test"]
    x, coarser = arrays.gather(rows, np.zeros_like(rows))
    packed = run_level(fine, x, coarser, "burt", None)
    composed = Cascade([fine, coarse]).reconstruct(x)[0]
    torch.testing.assert_close(packed.rebuilt, composed.rebuilt, atol=2e-3, rtol=0)  # fp16 levels and coarse images


def test_sigma_is_calibrated_on_the_training_split(small: Small) -> None:
    level = small.level(2)
    before = float(level.log_sigma)
    calibrate_sigma(level, small.arrays(2), small.rows["train"], "burt", 0)
    assert float(level.log_sigma) != before
    learned = small.level(2, sigma="learned")
    before = learned.log_sigma.item()
    calibrate_sigma(learned, small.arrays(2), small.rows["train"], "burt", 0)
    assert learned.log_sigma.item() == before


def test_the_loss_at_beta_one_is_the_bound_of_torchs_densities(small: Small) -> None:
    level = small.level(2, sigma="learned")
    rows = small.rows["train"]
    x, _ = small.arrays(2).gather(rows, np.zeros_like(rows))
    done = run_level(level, x, None, "burt", torch.Generator().manual_seed(0))
    rate, paid, distortion = terms(level, done)
    density = torch.distributions.Normal(done.mean, level.log_sigma.exp()).log_prob(done.target)
    torch.testing.assert_close(distortion, -density.sum((1, 2, 3)).mean())
    torch.testing.assert_close(rate, done.kl().sum((1, 2, 3)).mean())
    torch.testing.assert_close(paid, rate)


def test_free_bits_are_not_paid_for(small: Small) -> None:
    rows = small.rows["train"]
    x, _ = small.arrays(2).gather(rows, np.zeros_like(rows))
    level = small.level(2, free_bits=1000.0)
    rate, paid, _ = terms(level, run_level(level, x, None, "burt", None))
    assert paid == 2 * 1000.0  # two channels, both under their free bits
    assert rate < paid


def test_a_diverging_run_stops_with_advice(small: Small) -> None:
    level = small.level(2)
    with torch.no_grad():
        next(level.encoder.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match="no longer finite at update 10, and 3 returns"):
        run(small, level, small.arrays(2))


def test_the_average_has_its_half_life_in_images() -> None:
    model = nn.Linear(1, 1, bias=False)
    for batch in (10, 50):
        nn.init.zeros_(model.weight)
        average = WeightAverage(model, half_life_images=100)
        nn.init.ones_(model.weight)
        for seen in range(batch, 101, batch):
            average.update(average.share(10**6 + seen, batch))
        assert float(average.state["weight"]) == pytest.approx(0.5)


def test_no_average_keeps_the_last_weights(small: Small) -> None:
    level = small.level(2)
    settings = dataclasses.replace(small.training, ema_half_life_images=0, updates=3)
    kept = WeightAverage(level, 0)
    with torch.no_grad():
        for parameter in level.parameters():
            parameter.add_(1)
    kept.update(kept.share(8, 8))
    assert all(torch.equal(value, kept.state[name]) for name, value in level.state_dict().items())
    assert run(small, level, small.arrays(2), settings).curve[-1]["update"] == 3


@pytest.mark.parametrize("sigma", ["learned", "fixed"])
def test_a_batch_in_parts_is_the_whole_batch(small: Small, sigma: str) -> None:
    """Networks without batch norm, a sigma that is not the batch's: nothing is a part's own."""
    style = {"sigma": sigma, "sigma_255": 25.5 if sigma == "fixed" else 0.0}
    whole, parts = (run_in_parts(small, small.level(2, **style), accumulate) for accumulate in (1, 4))
    for one, four in zip(whole.curve, parts.curve, strict=True):
        assert four == pytest.approx(one, rel=1e-4)


def test_batch_norm_sees_a_part_of_a_batch_in_parts(small: Small) -> None:
    """As in any training that accumulates gradients: documented in TrainingSettings, and not the whole batch."""
    style = {"network": "plain", "latent": "vector", "sigma": "learned"}
    whole, parts = (run_in_parts(small, small.level(2, **style), accumulate) for accumulate in (1, 4))
    assert parts.curve[0]["loss_nats"] != pytest.approx(whole.curve[0]["loss_nats"], rel=1e-4)


def run_in_parts(small: Small, level: LevelCVAE, accumulate: int) -> TrainingResult:
    return run(small, level, small.arrays(2), dataclasses.replace(small.training, accumulate=accumulate))
