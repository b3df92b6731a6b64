from pathlib import Path

import numpy as np
import pytest
import torch

from lapcvae.data.batches import BatchOrder, PackedImages
from lapcvae.errors import DataError

CPU = torch.device("cpu")


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    rows = np.arange(100, 130)
    running, fresh = BatchOrder(rows, 8, seed=3), BatchOrder(rows, 8, seed=3)
    walked = [running.at(step) for step in range(20)]
    for step in (13, 2, 19, 0):
        for a, b in zip(walked[step], fresh.at(step), strict=True):
            np.testing.assert_array_equal(a, b)
    assert any((walked[step][0] != BatchOrder(rows, 8, seed=4).at(step)[0]).any() for step in range(3))


def test_every_row_comes_once_an_epoch() -> None:
    rows = np.array([5, 7, 11, 13, 17, 19, 23])
    order = BatchOrder(rows, 3, seed=0)
    seen = np.concatenate([order.at(step)[0] for step in range(7)])
    for epoch in range(3):
        assert sorted(seen[7 * epoch : 7 * (epoch + 1)]) == rows.tolist()


def test_about_half_is_mirrored() -> None:
    order = BatchOrder(np.arange(10), 50, seed=0)
    flips = np.concatenate([order.at(step)[1] for step in range(40)])
    assert set(flips) == {0, 1}
    assert 0.45 < flips.mean() < 0.55


def test_no_row_to_train_on() -> None:
    with pytest.raises(DataError):
        BatchOrder(np.array([], dtype=int), 3, seed=0)


def test_photographs_are_mirrored_on_reading_and_levels_by_orientation(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    plain = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "plain.npy", plain)
    oriented = rng.random((4, 2, 8, 8, 3)).astype(np.float16)
    np.save(tmp_path / "oriented.npy", oriented)
    rows, flips = np.array([2, 0]), np.array([1, 0])
    x = PackedImages(tmp_path / "plain.npy", CPU).gather(rows, flips).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(x, np.stack([plain[2, :, ::-1], plain[0]]) / np.float32(255))
    x = PackedImages(tmp_path / "oriented.npy", CPU).gather(rows, flips).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(x, np.stack([oriented[2, 1], oriented[0, 0]]).astype(np.float32))


def test_what_is_no_packed_array_is_said(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.zeros(5))
    with pytest.raises(DataError, match="expected N S S 3"):
        PackedImages(tmp_path / "flat.npy", CPU)
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00")
    with pytest.raises(DataError, match="dvc repro"):
        PackedImages(tmp_path / "cut.npy", CPU)


def test_a_row_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 8, 8, 3), np.uint8))
    images = PackedImages(tmp_path / "x.npy", CPU)
    with pytest.raises(DataError, match="has 3 images, and no row 3"):
        images.gather(np.array([0, 3]), np.array([0, 0]))
