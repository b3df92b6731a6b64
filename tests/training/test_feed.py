"""Batches as functions of (seed, update), also where the next one is made while a GPU uses the last."""

import numpy as np
import pytest
import torch

from lapcvae.data.batches import BatchOrder, PackedImages
from lapcvae.training.arrays import LevelArrays
from lapcvae.training.feed import _UPDATES, Feed
from lapcvae.training.layout import Batch
from lapcvae.training.processes import Processes
from lapcvae.training.trainable import LevelTraining
from tests.training.made import CPU, Small

NO_GPU = not torch.cuda.is_available()
GPU = pytest.param(torch.device("cuda"), marks=pytest.mark.skipif(NO_GPU, reason="needs a GPU"), id="gpu")


def feed_of(small: Small, device: torch.device, resident: bool) -> Feed:
    arrays = LevelArrays(PackedImages(small.folder / "x2.npy", device, resident))
    trainable = LevelTraining(small.level(2), arrays, small.kind)
    return Feed(trainable, BatchOrder(small.rows["train"], 8, 3), 3, Processes(device), 8, 2)


def copies(batches: list[Batch]) -> list[torch.Tensor]:
    return [tensor.clone() for packed, noise in batches for tensor in (*packed, *noise)]


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize("resident", [True, False])
def test_a_batch_is_what_its_update_says_whatever_came_before(
    small: Small, device: torch.device, resident: bool
) -> None:
    """Read late, by a device that is busy: the next one must not have been made in its place by then."""
    # Some are made at once: on from one lot to the next, back to an earlier one, amid one, and far ahead.
    ran, order = feed_of(small, device, resident), [*range(2 * _UPDATES + 3), 4, 5, 6, *range(30, 50), 200]
    seen = []
    for update in order:
        batches = ran.inputs(update).batches()
        if device.type == "cuda":
            torch.cuda._sleep(20_000_000)
        seen.append(copies(batches))
        del batches
        next(ran.as_they_are(small.rows["val"], 4))  # which draws noise of its own
    ran.close()
    for update, tensors in zip(order, seen, strict=True):
        for mine, fresh in zip(tensors, copies(feed_of(small, device, resident).inputs(update).batches()), strict=True):
            assert torch.equal(mine.cpu(), fresh.cpu()), update
    assert not np.array_equal(seen[0][0].cpu(), seen[1][0].cpu())
