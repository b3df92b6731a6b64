"""Packed photographs come back byte for byte, whatever they are called."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lapcvae.data.photograph_writer import PhotographWriter
from lapcvae.data.photographs import (
    INDEX,
    MOST_ROWS,
    ends_shard,
    entries_of,
    packed_folder,
    read_index,
    read_photograph,
    read_shards,
    shard_path,
)
from lapcvae.errors import DataError


def test_bytes_come_back_from_several_shards(tmp_path: Path) -> None:
    photographs = {f"p\n{i}, \"'.jpg": bytes([i]) * (200_000 + i) for i in range(50)}
    with PhotographWriter(tmp_path) as writer:
        for name, data in photographs.items():
            writer.store(name, "", data)
        writer.refuse("link", "", "not_a_file")
    entries = list(read_index(tmp_path))
    assert len(list(tmp_path.glob("*.bin"))) > 5
    assert max(p.stat().st_size for p in tmp_path.glob("*.bin")) <= 4 << 20
    stored = [e for e in entries if not e.reason]
    packed = packed_folder(tmp_path)
    assert [read_photograph(packed, e.shard, e.offset, e.bytes) for e in stored] == list(photographs.values())
    assert entries[-1].reason == "not_a_file"
    assert (tmp_path / "index.csv").read_text().count("\n") == 52


def test_shards_come_back_as_lines(tmp_path: Path) -> None:
    photographs = []
    with PhotographWriter(tmp_path) as writer:
        writer.refuse("a link", "", "not_a_file")
        for i in range(50):
            photographs.append(bytes([i]) * (100_000 + i))
            writer.store(f'p, "{i}"', "a, b", photographs[-1])
            writer.refuse(f"link {i}", "", "not_a_file")
        for i in range(3 * MOST_ROWS):
            writer.refuse(f"{i}", "", "empty")
        photographs.append(b"12345678")
        writer.store("last", "", photographs[-1])
    digests = [hashlib.sha256(data).hexdigest() for data in photographs]
    shards = list(read_shards(tmp_path))
    assert len({entry.shard for lines, _ in shards for entry in entries_of(lines) if entry.shard}) > 2
    assert [line for lines, _ in shards for line in lines] == (tmp_path / INDEX).read_text().splitlines(True)[1:]
    entries = [list(entries_of(lines)) for lines, _ in shards]
    assert [entry.sha256 for of_shard in entries for entry in of_shard if not entry.reason] == digests
    assert [sum(not entry.reason for entry in of_shard) for of_shard in entries] == [stored for _, stored in shards]
    assert all(len({entry.shard for entry in of_shard} - {""}) <= 1 for of_shard in entries)
    assert max(len(lines) for lines, _ in shards) == MOST_ROWS


@pytest.mark.parametrize(("size", "share"), [(0, 1 / 64), (16_000, 1 / 64), (128 << 10, 1 / 8), (1 << 20, 1)])
def test_a_shard_has_as_many_photographs_as_make_a_megabyte(size: int, share: float) -> None:
    ends = sum(ends_shard(f"Someone/IMG_{i:05d}.jpg", size) for i in range(10_000))
    assert ends == pytest.approx(10_000 * share, rel=0.2)


def test_a_short_shard_is_told(tmp_path: Path) -> None:
    with PhotographWriter(tmp_path) as writer:
        writer.store("a", "", b"12345678")
    (entry,) = read_index(tmp_path)
    shard_path(tmp_path, entry.shard).write_bytes(b"1234")
    with pytest.raises(DataError, match="ends before byte 8"):
        read_photograph(packed_folder(tmp_path), entry.shard, entry.offset, entry.bytes)


def test_a_shard_that_was_put_back_is_read_and_not_the_one_that_was_open(tmp_path: Path) -> None:
    with PhotographWriter(tmp_path) as writer:
        writer.store("a", "", b"12345678")
    (entry,) = read_index(tmp_path)
    place = entry.shard, entry.offset, entry.bytes
    for content in (b"abcdefgh", b"12345678"):  # the index stays as it was
        restored = tmp_path / "restored"
        restored.write_bytes(content)
        restored.replace(shard_path(tmp_path, entry.shard))
        assert read_photograph(packed_folder(tmp_path), *place) == content


def test_a_missing_or_foreign_index_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not found"):
        list(read_index(tmp_path))
    with pytest.raises(DataError, match="not found"):
        packed_folder(tmp_path)
    (tmp_path / "index.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="columns"):
        list(read_index(tmp_path))
