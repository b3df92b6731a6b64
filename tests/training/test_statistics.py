"""Batch norm's statistics: of the weights that are measured, from training photographs."""

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from lapcvae.data.batches import BatchOrder
from lapcvae.models.batch_norm import batch_norms
from lapcvae.training.feed import Feed
from lapcvae.training.loop import train
from lapcvae.training.processes import Processes
from lapcvae.training.statistics import take_statistics
from lapcvae.training.trainable import LevelTraining
from tests.training.made import CPU, STYLES, Small


def plain(small: Small) -> LevelTraining:
    return small.trainable(2, **STYLES["batch norm"])


def feed_of(trainable: LevelTraining, small: Small) -> Feed:
    return Feed(trainable, BatchOrder(small.rows["train"], 8, 0), 0, Processes(CPU), 8, 1)


def buffers(trainable: LevelTraining) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainable.named_buffers()}


def test_they_are_the_mean_of_the_batches_own(small: Small) -> None:
    trainable = plain(small)
    batches = list(feed_of(trainable, small).as_they_are(small.rows["train"], 8))
    assert [len(packed[0]) for packed, _ in batches] == [8, 8, 7, 7]
    seen: list[Tensor] = []
    norm = next(part for part in trainable.modules() if isinstance(part, nn.BatchNorm2d))
    hook = norm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    take_statistics(trainable, batches)
    hook.remove()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0))
    assert trainable.training
    assert norm.momentum == 0.1


def test_after_training_they_are_those_of_the_averaged_weights(small: Small) -> None:
    """Taken once more they are the same; those that training gathered were others."""
    settings = dataclasses.replace(small.training, learning_rate=1e-2, ema_half_life_images=200)
    trainable = plain(small)
    train(trainable, small.rows, settings, 0, Processes(CPU), "test")
    assert batch_norms(trainable)
    assert not trainable.training
    kept = buffers(trainable)
    take_statistics(trainable, feed_of(trainable, small).as_they_are(small.rows["train"], 8))
    assert not trainable.training
    for name, value in buffers(trainable).items():
        torch.testing.assert_close(value, kept[name])


def test_the_curve_holds_what_the_weights_of_the_moment_are_worth(small: Small) -> None:
    """After one large step, running statistics would be those of the first weights."""
    settings = dataclasses.replace(
        small.training, updates=2, log_interval=1, warmup_updates=1, learning_rate=0.03, ema_half_life_images=0
    )
    trainable = plain(small)
    result = train(trainable, small.rows, settings, 0, Processes(CPU), "test")
    # The last row's weights are those that are kept.
    packed, noise = next(feed_of(trainable, small).as_they_are(small.rows["val"], 8))
    with torch.no_grad():
        terms = trainable(packed, noise)
    np.testing.assert_allclose(
        result.curve[-1]["val_loss_nats"], float(terms["rate_nats"] + terms["distortion_nats"]), rtol=1e-5
    )


def test_a_network_without_batch_norm_is_left_alone(small: Small) -> None:
    assert not batch_norms(small.trainable(2))
