import itertools
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from lapcvae.errors import ConfigError, DataError
from lapcvae.pyramid import precompute
from lapcvae.pyramid.filters import expand
from lapcvae.pyramid.laplacian import PyramidConfig
from lapcvae.pyramid.stored import read_pyramid, write_pyramid


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)


SPLITS = ["train", "train", "val", "test", "train", "test", "train"]


def test_stored_levels_collapse_to_the_photographs(images: np.ndarray, tmp_path: Path) -> None:
    stored = write_pyramid(images, SPLITS, PyramidConfig(coarsest=8), tmp_path / "p")
    assert stored.sides == (32, 16, 8)
    x1 = np.load(tmp_path / "p/x1.npy")
    np.testing.assert_array_equal(x1, images)
    for flip in (0, 1):
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        levels = [x.flip(-1) if flip else x]
        for k in (2, 3):
            array = np.load(tmp_path / f"p/x{k}.npy")[:, flip]
            levels.append(torch.from_numpy(array).permute(0, 3, 1, 2).float())
        bands = [fine - expand(coarse) for fine, coarse in itertools.pairwise(levels)]
        rebuilt = expand(expand(levels[2]) + bands[1]) + bands[0]
        torch.testing.assert_close(rebuilt, levels[0], atol=1e-6, rtol=0)


def test_statistics_are_those_of_the_training_split(images: np.ndarray, tmp_path: Path) -> None:
    stored = write_pyramid(images, SPLITS, PyramidConfig(coarsest=16), tmp_path / "p")
    train = images[[i for i, split in enumerate(SPLITS) if split == "train"]] / 255
    np.testing.assert_allclose(stored.statistics["1"]["mean"], train.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(stored.statistics["1"]["std"], train.std((0, 1, 2)), rtol=1e-6)
    again, rows = read_pyramid(tmp_path / "p")
    assert again == stored
    assert rows["test"].tolist() == [3, 5]
    assert stored.photographs == {"train": 4, "val": 1, "test": 2}


def test_other_photographs_have_another_digest(images: np.ndarray, tmp_path: Path) -> None:
    first = write_pyramid(images, SPLITS, PyramidConfig(coarsest=16), tmp_path / "a")
    images[3, 2, 1, 0] ^= 1
    second = write_pyramid(images, SPLITS, PyramidConfig(coarsest=16), tmp_path / "b")
    assert first.data_digest != second.data_digest


def test_what_cannot_be_built_is_said(images: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pyramid\.coarsest"):
        write_pyramid(images, SPLITS, PyramidConfig(coarsest=12), tmp_path / "p")
    with pytest.raises(DataError, match="training split"):
        write_pyramid(images, ["test"] * 7, PyramidConfig(coarsest=16), tmp_path / "p")
    with pytest.raises(DataError, match="7 images but 1"):
        write_pyramid(images, ["train"], PyramidConfig(coarsest=16), tmp_path / "p")
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_a_damaged_pyramid_is_said(images: np.ndarray, tmp_path: Path) -> None:
    write_pyramid(images, SPLITS, PyramidConfig(coarsest=16), tmp_path / "p")
    (tmp_path / "p/splits.npy").write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(DataError, match="dvc repro pyramid"):
        read_pyramid(tmp_path / "p")


@pytest.mark.parametrize("waiting", [20, 4096])
def test_new_photographs_alone_are_worked_on_and_no_byte_depends_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    monkeypatch.setattr(precompute, "_WAITING", waiting)
    monkeypatch.setattr(precompute, "_PART_BYTES", 70_000)  # 22 photographs, of which 3 or 4 are new
    images = np.random.default_rng(1).integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)
    splits = [SPLITS[i % len(SPLITS)] for i in range(300)]
    cache = tmp_path / "cache"
    config = PyramidConfig(coarsest=8)
    old = [i for i in range(300) if i % 7]  # the new ones stand between the old ones
    write_pyramid(images[old], [splits[i] for i in old], config, tmp_path / "old", cache)
    with closing(sqlite3.connect(cache / "32-16-8.sqlite")) as db:
        kept = list(db.execute("SELECT place, key FROM records ORDER BY place"))
        assert len(kept) == len(old)
        write_pyramid(images, splits, config, tmp_path / "grown", cache)
        now = list(db.execute("SELECT place, key FROM records ORDER BY place"))
    assert len(now) == 300
    assert now[: len(old)] == kept  # what was there was not worked out again
    monkeypatch.setattr(precompute, "_PART_BYTES", 20_000)  # six at once
    write_pyramid(images, splits, config, tmp_path / "afresh")
    for name in ("x1.npy", "x2.npy", "x3.npy", "splits.npy", "pyramid.json"):
        assert (tmp_path / "grown" / name).read_bytes() == (tmp_path / "afresh" / name).read_bytes()
