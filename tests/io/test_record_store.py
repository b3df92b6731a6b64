"""Kept records come back as they were or not at all, and many may write at once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from lapcvae.errors import StorageError
from lapcvae.io import record_store
from lapcvae.io.record_store import RecordFile, RecordStore, write_record

LENGTHS = {"large": 192, "small": 12}


def parts(seed: int) -> dict[str, bytes]:
    numbers = np.random.default_rng(seed).integers(0, 256, sum(LENGTHS.values()), dtype=np.uint8).tobytes()
    return {"large": numbers[:192], "small": numbers[192:]}


def key(seed: int) -> bytes:
    return seed.to_bytes(16, "big")


def made(seed: int) -> bytes:
    return hashlib.sha256(b"".join(parts(seed).values())).digest() + b"more"


def keep(store: RecordStore, *seeds: int) -> None:
    places = store.reserve(len(seeds))
    for seed, place in reversed(list(zip(seeds, places, strict=True))):  # in any order
        for name, data in parts(seed).items():
            write_record(store.files[name], place, data)
    store.keep((key(seed), place, made(seed)) for seed, place in zip(seeds, places, strict=True))


def known(folder: Path, *seeds: int) -> set[int]:
    with RecordStore(folder / "s", LENGTHS) as store:
        found = store.find([key(seed) for seed in seeds])
    assert all(found[k][0] == made(int.from_bytes(k, "big")) for k in found)
    return {int.from_bytes(k, "big") for k in found}


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    with RecordStore(tmp_path / "x" / "s", LENGTHS) as store:
        keep(store, *range(1200))
    with RecordStore(tmp_path / "x" / "s", LENGTHS) as store:
        keep(store, 2000, 2001)
        found = store.find([key(seed) for seed in (2001, 3000, 7, 8, 1199)])
        assert found.keys() == {key(seed) for seed in (2001, 7, 8, 1199)}
        assert all(found[key(seed)][0] == made(seed) for seed in (2001, 7, 8, 1199))
        wanted = (8, 7, 2001, 1199)
        for name in LENGTHS:
            read = b"".join(store.read(name, [found[key(seed)][1] for seed in wanted]))
            assert read == b"".join(parts(seed)[name] for seed in wanted)
            assert not list(store.read(name, []))


def test_long_runs_are_read_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_store, "_PART_BYTES", 1000)
    with RecordStore(tmp_path / "s", LENGTHS) as store:
        keep(store, *range(20))
        read = list(store.read("large", range(20)))
    assert max(map(len, read)) == 1000
    assert b"".join(read) == b"".join(parts(seed)["large"] for seed in range(20))


def test_places_of_a_run_that_was_cut_off_are_used_again(tmp_path: Path) -> None:
    with RecordStore(tmp_path / "s", LENGTHS) as store:
        keep(store, 1, 2)
        for place in store.reserve(3):
            write_record(store.files["large"], place, parts(9)["large"])
    with RecordStore(tmp_path / "s", LENGTHS) as store:
        keep(store, 3)
        assert store.find([key(3)])[key(3)] == (made(3), 2)


@pytest.mark.parametrize("name", LENGTHS)
def test_a_damaged_record_is_forgotten_and_the_others_are_not(name: str, tmp_path: Path) -> None:
    with RecordStore(tmp_path / "s", LENGTHS) as store:
        keep(store, *range(700))
        path, length = Path(store.files[name].path), LENGTHS[name]
    data = bytearray(path.read_bytes())
    data[3 * length + 5] ^= 1
    path.write_bytes(data[: -length // 2])  # and the last one is cut
    assert known(tmp_path, 0) == {0}  # who finds the damage may not ask for what is damaged
    assert known(tmp_path, *range(700)) == set(range(700)) - {3, 699}


def test_what_a_run_that_failed_left_is_looked_at(tmp_path: Path) -> None:
    """Also what was there before it."""
    with RecordStore(tmp_path / "s", LENGTHS) as store:
        keep(store, *range(4))
    store = RecordStore(tmp_path / "s", LENGTHS)
    keep(store, *range(4, 8))
    write_record(store.files["small"], 1, bytes(LENGTHS["small"]))
    store.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert known(tmp_path, *range(9)) == {0, 2, 3, 4, 5, 6, 7}


def test_after_a_start_of_the_machine_every_record_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written last may be lost then, under a size and a time that are right."""
    with RecordStore(tmp_path / "s", LENGTHS) as store:
        keep(store, *range(4))
        path = Path(store.files["small"].path)
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[15] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    monkeypatch.setattr(record_store, "_boot", lambda: "another")
    assert known(tmp_path, *range(4)) == {0, 2, 3}


def test_a_file_that_is_cut_while_it_is_read_is_told(tmp_path: Path) -> None:
    with RecordStore(tmp_path / "s", LENGTHS) as store:
        keep(store, 1, 2)
        Path(store.files["small"].path).write_bytes(bytes(23))
        with pytest.raises(StorageError, match=r"s\.small\.bin: was cut while it was read; remove it"):
            list(store.read("small", [0, 1]))


def test_a_disk_that_refuses_is_told() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(StorageError, match=r"/dev/full: a record could not be kept .*free some space"):
        write_record(RecordFile("/dev/full", Path("/dev/full").stat().st_ino), 0, b"x")


def test_an_index_that_is_damaged_within_is_told(tmp_path: Path) -> None:
    with RecordStore(tmp_path / "s", LENGTHS) as store:
        keep(store, *range(2000))
    data = bytearray((tmp_path / "s.sqlite").read_bytes())
    data[8192:] = bytes(len(data) - 8192)
    (tmp_path / "s.sqlite").write_bytes(data)
    with pytest.raises(StorageError, match=r"s\.sqlite: cannot be read .*; remove it"):
        RecordStore(tmp_path / "s", LENGTHS)


def test_a_folder_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "s.small.bin").mkdir()
    with pytest.raises(StorageError, match=r"s\.small\.bin: .* remove it"):
        RecordStore(tmp_path / "s", LENGTHS)
