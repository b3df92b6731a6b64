import dataclasses

import numpy as np
import pytest
import torch

from lapcvae.data.batches import PackedImages
from lapcvae.models.cascade import Cascade
from lapcvae.training.arrays import LevelArrays
from lapcvae.training.end_to_end import EndToEnd, calibrate
from lapcvae.training.loop import train
from lapcvae.training.processes import Processes
from lapcvae.training.trainable import LevelTraining
from tests.training.made import CPU, Small


def images(small: Small) -> LevelArrays:
    """The whole photographs."""
    return LevelArrays(PackedImages(small.folder / "x1.npy", CPU))


@pytest.fixture
def greedy(small: Small) -> Cascade:
    """Both levels, trained a little, one after the other."""
    coarse, fine = small.level(2), small.level(1)
    settings = dataclasses.replace(small.training, updates=20)
    train(LevelTraining(coarse, small.arrays(2), "burt"), small.rows, settings, 0, Processes(CPU), "test")
    train(LevelTraining(fine, small.arrays(1, coarse), "burt"), small.rows, settings, 0, Processes(CPU), "test")
    return Cascade([fine, coarse])


def test_gradients_reach_the_coarsest_level_through_the_image(small: Small, greedy: Cascade) -> None:
    trainable = EndToEnd(greedy.train(), images(small), 1.0)
    rows = small.rows["train"][:4]
    noise = tuple(torch.randn(4, *shape) for shape in trainable.noise_shapes())
    found = trainable(trainable.pick(rows, np.zeros_like(rows)), noise)
    found["distortion_nats"].backward()
    for k in (1, 2):
        assert sum(float(p.grad.abs().sum()) for p in greedy.level(k).parameters() if p.grad is not None) > 0


def test_it_lowers_the_image_space_bound_of_the_greedy_model(small: Small, greedy: Cascade) -> None:
    settings = dataclasses.replace(small.training, updates=24, log_interval=6, learning_rate=1e-3)
    result = train(EndToEnd(greedy, images(small), 1.0), small.rows, settings, 0, Processes(CPU), "test")
    curve = result.curve
    assert curve[-1]["val_loss_nats"] < curve[0]["val_loss_nats"]
    assert curve[-1]["coefficient_bound_nats"] < curve[0]["coefficient_bound_nats"]
    assert curve[-1]["loss_nats"] == pytest.approx(curve[-1]["rate_nats"] + curve[-1]["distortion_nats"])


def test_a_level_that_collapses_among_others_is_named(
    small: Small, greedy: Cascade, capsys: pytest.CaptureFixture[str]
) -> None:
    greedy.level(1).settings = dataclasses.replace(greedy.level(1).settings, kl_weight=1e4)
    settings = dataclasses.replace(small.training, updates=60)
    result = train(EndToEnd(greedy, images(small), 1.0), small.rows, settings, 0, Processes(CPU), "test")
    said = capsys.readouterr().err
    assert said.count("warning: test, level 1: posterior collapse: 32 of 32 latents") == 1
    assert "level 2" not in said
    assert (result.unused_latents, result.latents) == (32, 64)


def test_the_objective_is_the_sum_of_both_bounds(small: Small, greedy: Cascade) -> None:
    trainable = EndToEnd(greedy.eval(), images(small), 0.5)
    rows = small.rows["train"][:4]
    noise = tuple(
        torch.randn(4, *shape, generator=torch.Generator().manual_seed(1)) for shape in trainable.noise_shapes()
    )
    found = trainable(trainable.pick(rows, np.zeros_like(rows)), noise)
    whole = found["coefficient_bound_nats"] + 0.5 * (found["rate_nats"] + found["distortion_nats"])
    torch.testing.assert_close(trainable.losses(found, 0)["model"] * trainable.dimensions(), whole)


def test_sigmas_are_the_optimum_of_what_the_composed_model_does(small: Small, greedy: Cascade) -> None:
    arrays, rows = images(small), small.rows["train"]
    calibrate(greedy.eval(), arrays, rows, 0)
    x, _ = arrays.gather(rows, np.zeros_like(rows))
    passes = greedy.reconstruct(x, torch.Generator().manual_seed(0))
    for k, done in enumerate(passes, 1):
        assert float(greedy.level(k).log_sigma.detach().exp()) == pytest.approx(
            float(done.error.square().mean().sqrt())
        )
