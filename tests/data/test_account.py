"""The account of a manifest adds up, and the page shows what was rejected and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lapcvae.config import load
from lapcvae.data.account import account, write_page
from lapcvae.data.decode import DecodeConfig
from lapcvae.data.manifest import ManifestWriter, Row, read_manifest, read_texts
from lapcvae.errors import DataError
from tests.data.flow import PARAMS, look_and_align


def write(path: Path, *rows: Row) -> Path:
    with ManifestWriter(path) as writer:
        writer.write(rows)
    return path


def test_every_row_is_counted_once(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.csv",
        *(Row(f'a "{i}", b', "test", "", "0", "accepted", row=i, split="train") for i in range(3)),
        Row("c", "test", "", "0", "accepted", row=3, split="test"),
        Row("d", "test", "", "", "rejected", "empty"),
    )
    assert account(path) == {
        "photographs": 5,
        "accepted": 4,
        "splits": {"train": 3, "val": 0, "test": 1},
        "rejected": {"empty": 1},
    }
    names = [(row.name, row.split) for row in read_manifest(path)]
    assert list(read_texts(path, "name", "split")) == names
    assert names[0][0] == 'a "0", b'


@pytest.mark.parametrize(
    "row",
    [
        Row("a", "test", "", "0", "accepted", split="other"),
        Row("a", "test", "", "0", "rejected", "no reason"),
        Row("a", "test", "", "0", "neither"),
    ],
)
def test_rows_that_mean_nothing_are_told(row: Row, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="do not add up"):
        account(write(tmp_path / "m.csv", row))


def test_the_page_shows_the_rejected(faces: dict[str, bytes], pack: Callable[..., Path], tmp_path: Path) -> None:
    good, other = list(faces.values())[:2]
    raw = pack({"good.jpg": good, "<cut>.jpg": other[:3000], "text.jpg": b"text", "again.jpg": good})
    look_and_align(raw, tmp_path)
    write_page(tmp_path / "aligned" / "manifest.csv", raw, tmp_path / "page.html", load(DecodeConfig, "decode", PARAMS))
    page = (tmp_path / "page.html").read_text()
    assert page.count("<figure>") == 3
    assert page.count("<img") == 1  # of the duplicate; the other two cannot be shown
    assert "&lt;cut&gt;.jpg" in page
    assert "text.jpg" in page
    assert ">good.jpg<" not in page
