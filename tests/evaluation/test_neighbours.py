from pathlib import Path

import numpy as np
import pytest
import torch

from lapcvae.data.batches import PackedImages
from lapcvae.evaluation import neighbours


@pytest.fixture
def photographs(tmp_path: Path) -> PackedImages:
    noise = torch.rand(300, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(noise, size=64, mode="bilinear")
    np.save(tmp_path / "x1.npy", (x * 255).round().byte().permute(0, 2, 3, 1).numpy())
    return PackedImages(tmp_path / "x1.npy", torch.device("cpu"))


def test_a_repeated_photograph_is_found_mirrored_or_not(photographs: PackedImages) -> None:
    training = np.arange(10, 300)
    rows, flips = np.array([10, 42, 299, 3]), np.array([0, 1, 0, 0])
    found = neighbours.nearest(photographs.gather(rows, flips), photographs, training)
    np.testing.assert_array_equal(found.row[:3], rows[:3])
    np.testing.assert_array_equal(found.flip[:3], flips[:3])
    np.testing.assert_allclose(found.distance[:3], 0, atol=1e-3)
    assert found.distance[3] > 10  # row 3 was not trained on
    assert found.row[3] in training


def test_the_distance_is_on_the_0_255_scale(photographs: PackedImages) -> None:
    x = photographs.gather(np.array([5]), np.array([0])) * 0.5 + 0.25
    found = neighbours.nearest(x + 4 / 255, photographs, np.array([5]))
    assert found.distance[0] == pytest.approx(neighbours.nearest(x, photographs, np.array([5])).distance[0], rel=0.2)
    grey = torch.full((1, 3, 64, 64), 0.5)
    flat = neighbours.nearest(grey, photographs, np.array([5])).distance[0]
    expected = (photographs.gather(np.array([5]), np.array([0])) - 0.5).mul(255).square().mean().sqrt()
    assert flat == pytest.approx(float(expected), rel=0.1)  # a little is lost on the way to 32 px


def test_learnt_by_heart_is_noticed() -> None:
    held_out = np.linspace(30, 50, 200)
    honest = neighbours.summary({"samples": held_out, "reconstructions": held_out, "held_out": held_out})
    learnt = neighbours.summary({"samples": held_out / 10, "reconstructions": held_out, "held_out": held_out})
    assert honest["repeated_share"] <= 0.01
    assert learnt["repeated_share"] == 1
    assert learnt["samples_median"] == pytest.approx(4)
