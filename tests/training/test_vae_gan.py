import copy
import dataclasses
import math

import numpy as np
import pytest
import torch

from lapcvae.models.cascade import run_level
from lapcvae.models.noise import Drawn
from lapcvae.training.loop import train
from lapcvae.training.processes import Processes
from lapcvae.training.vae_gan import FEATURE_WEIGHT, MARGIN, VaeGanTraining
from tests.training.made import CPU, Small, vae_gan


@pytest.fixture
def trainable(small: Small) -> VaeGanTraining:
    return vae_gan(small)


def batch(trainable: VaeGanTraining, small: Small) -> dict[str, torch.Tensor]:
    rows = small.rows["train"][:8]
    noise = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    return trainable(trainable.pick(rows, np.zeros_like(rows)), tuple(noise))  # type: ignore[no-any-return]


def test_every_part_minimises_its_own_loss(trainable: VaeGanTraining, small: Small) -> None:
    """A step of one part against its gradient lowers that part's loss, and reaches no other part's parameters."""
    parts = trainable.parts()
    assert sorted(parts) == ["decoder", "discriminator", "encoder"]
    assert sum(len(p) for p in parts.values()) == len({id(p) for part in parts.values() for p in part})
    for name in parts:
        trainable.zero_grad(set_to_none=True)
        before = trainable.losses(batch(trainable, small), 0)[name]
        before.backward(inputs=list(parts[name]))
        touched = {id(p) for p in trainable.parameters() if p.grad is not None}
        assert touched == {id(p) for p in parts[name]}
        norm = torch.stack([p.grad.norm() for p in parts[name] if p.grad is not None]).norm()
        with torch.no_grad():
            for p in parts[name]:
                assert p.grad is not None
                p -= 1e-3 * p.grad / norm
        after = trainable.losses(batch(trainable, small), 0)[name]
        assert after < before


def test_the_reconstruction_error_is_a_gaussians_on_the_discriminators_features(
    trainable: VaeGanTraining, small: Small
) -> None:
    found = batch(trainable, small)
    rows = small.rows["train"][:8]
    x, _ = trainable.arrays.gather(rows, np.zeros_like(rows))
    noise = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    rebuilt = run_level(trainable.level, x, None, "burt", Drawn(noise[:1])).mean
    seen = torch.cat([x, rebuilt, trainable.level.decode(noise[1], None)])
    real, of_rebuilt, _ = trainable.discriminator(2 * seen - 1)[0].chunk(3)
    density = torch.distributions.Normal(of_rebuilt, 1.0)
    nats = -(density.log_prob(real) - density.log_prob(of_rebuilt)).sum((1, 2, 3)).mean()
    torch.testing.assert_close(found["feature_nats"], nats, rtol=1e-4, atol=0)


def test_running_statistics_are_those_of_reconstructions(trainable: VaeGanTraining, small: Small) -> None:
    rows = small.rows["train"][:8]
    packed = trainable.pick(rows, np.zeros_like(rows))
    noise = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    x, _ = trainable.arrays.unpack(packed)
    alone = copy.deepcopy(trainable.level)
    run_level(alone, x, None, "burt", Drawn(noise[:1]))
    trainable(packed, tuple(noise))
    for name, value in trainable.level.named_buffers():
        if "running" in name:
            torch.testing.assert_close(value, dict(alone.named_buffers())[name])


@pytest.mark.parametrize(
    ("real", "made", "decoder_waits", "discriminator_waits"),
    [
        (math.log(2), 2 * math.log(2), False, False),
        (math.log(2) - MARGIN - 0.01, 2 * math.log(2), False, True),
        (math.log(2), 2 * (math.log(2) - MARGIN - 0.01), False, True),
        (math.log(2) + MARGIN + 0.01, 2 * math.log(2), True, False),
        (math.log(2) - MARGIN - 0.01, 2 * (math.log(2) + MARGIN + 0.01), False, False),
    ],
)
def test_who_is_ahead_waits(
    trainable: VaeGanTraining, real: float, made: float, decoder_waits: bool, discriminator_waits: bool
) -> None:
    found = {
        "rate_nats": torch.tensor(3.0), "feature_nats": torch.tensor(5.0), "_decoder_nats": torch.tensor(7.0),
        "real_nats": torch.tensor(real), "made_nats": torch.tensor(made),
    }  # fmt: skip
    losses = trainable.losses(found, 0)
    torch.testing.assert_close(losses["decoder"], torch.tensor(5.0 * FEATURE_WEIGHT + 7.0 * (not decoder_waits)))
    torch.testing.assert_close(losses["discriminator"], torch.tensor((real + made) * (not discriminator_waits)))


def test_it_trains_in_the_common_loop(trainable: VaeGanTraining, small: Small) -> None:
    settings = dataclasses.replace(small.training, updates=20, log_interval=5, learning_rate=1e-3)
    before = {name: value.clone() for name, value in trainable.state_dict().items()}
    result = train(trainable, small.rows, settings, 0, Processes(CPU), "test")
    assert {"feature_nats", "real_nats", "made_nats"} <= result.curve[-1].keys()
    assert all(np.isfinite(value) for value in result.curve[-1].values())
    first, last = (result.curve[i]["real_nats"] + result.curve[i]["made_nats"] for i in (0, -1))
    assert last < first
    changed = [name for name, value in trainable.state_dict().items() if not torch.equal(value, before[name])]
    assert {name.split(".")[0] for name in changed} == {"level", "discriminator"}
