from pathlib import Path

import pytest

from lapcvae.data.manifest import ManifestWriter, Row
from lapcvae.errors import DataError
from lapcvae.evaluation.frozen import freeze, read_frozen


def manifest(path: Path, rows: list[Row]) -> Path:
    with ManifestWriter(path) as writer:
        for i, row in enumerate(rows):
            row.row = i
            writer.write([row])
    return path


def face(name: str, split: str, aligned: str = "") -> Row:
    return Row(
        name, "folder", name, f"{name}-file", "accepted", split=split, group=f"{name}'s person",
        pixels_sha256=f"{name}-pixels", aligned_sha256=aligned or f"{name}-aligned",
    )  # fmt: skip


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    rows = [face("a", "train"), face("b", "test"), face("c", "val"), face("d", "test")]
    freeze(manifest(tmp_path / "first.csv", rows), tmp_path / "frozen.csv")
    return tmp_path / "frozen.csv"


def test_new_photographs_and_new_rows_leave_it_as_it_was(frozen: Path, tmp_path: Path) -> None:
    rows = [face("x", "test"), face("d", "test"), face("a", "train"), face("b", "test"), face("y", "train")]
    found = read_frozen(manifest(tmp_path / "later.csv", rows), frozen)
    assert found.rows.tolist() == [3, 1]
    assert found.groups == ["b's person", "d's person"]
    assert found.digest == read_frozen(tmp_path / "first.csv", frozen).digest


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([face("b", "test")], "d is no longer in the data set"),
        ([face("b", "test"), face("d", "train")], "d is now in the split `train`"),
        ([face("b", "test"), face("d", "test", "other")], "d is aligned otherwise"),
    ],
)
def test_anything_else_is_an_error_and_never_a_smaller_set(
    frozen: Path, tmp_path: Path, rows: list[Row], why: str
) -> None:
    with pytest.raises(DataError, match=why):
        read_frozen(manifest(tmp_path / "later.csv", rows), frozen)


def test_no_test_photograph_cannot_be_frozen(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="test split"):
        freeze(manifest(tmp_path / "first.csv", [face("a", "train")]), tmp_path / "frozen.csv")
    assert not (tmp_path / "frozen.csv").exists()
