"""Kept faces come back as they were or not at all, and many may write at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lapcvae.data.face_store import FaceFile, FaceStore, write_face
from lapcvae.data.manifest import ImagesWriter
from lapcvae.errors import StorageError
from tests.data.flow import look_and_align

SIZE = 8


def face(seed: int) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, SIZE * SIZE * 3, dtype=np.uint8).tobytes()


def key(seed: int) -> bytes:
    return seed.to_bytes(16, "big")


def made(seed: int) -> bytes:
    return hashlib.sha256(face(seed)).digest() + b"more"


def keep(store: FaceStore, *seeds: int) -> None:
    places = store.reserve(len(seeds))
    for seed, place in reversed(list(zip(seeds, places, strict=True))):  # in any order
        write_face(store.file, place, face(seed))
    store.keep((key(seed), place, made(seed)) for seed, place in zip(seeds, places, strict=True))


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    with FaceStore(tmp_path / "x", SIZE) as store:
        keep(store, *range(1200))
    with FaceStore(tmp_path / "x", SIZE) as store:
        keep(store, 2000, 2001)
        found = store.find([key(seed) for seed in (2001, 3000, 7, 8, 1199)])
        assert found.keys() == {key(seed) for seed in (2001, 7, 8, 1199)}
        assert all(found[key(seed)][0] == made(seed) for seed in (2001, 7, 8, 1199))
        with ImagesWriter(tmp_path / "images.npy", SIZE) as images:
            store.copy([found[key(seed)][1] for seed in (8, 7, 2001)], images)
            store.copy([], images)
            store.copy([found[key(1199)][1]], images)
    expected = np.frombuffer(b"".join(map(face, (8, 7, 2001, 1199))), np.uint8).reshape(4, SIZE, SIZE, 3)
    assert np.array_equal(np.load(tmp_path / "images.npy"), expected)


def test_sizes_do_not_mix(tmp_path: Path) -> None:
    with FaceStore(tmp_path, SIZE) as store:
        keep(store, 1)
    with FaceStore(tmp_path, 2 * SIZE) as other:
        assert not other.find([key(1)])


def test_places_of_a_run_that_was_cut_off_are_used_again(tmp_path: Path) -> None:
    with FaceStore(tmp_path, SIZE) as store:
        keep(store, 1, 2)
        for place in store.reserve(3):
            write_face(store.file, place, face(9))
    with FaceStore(tmp_path, SIZE) as store:
        keep(store, 3)
        assert store.find([key(3)])[key(3)] == (made(3), 2)


def test_a_damaged_face_is_not_known(tmp_path: Path) -> None:
    with FaceStore(tmp_path, SIZE) as store:
        keep(store, *range(10))
        path = Path(store.file.path)
    data = bytearray(path.read_bytes())
    data[3 * SIZE * SIZE * 3 + 5] ^= 1
    path.write_bytes(data[: -SIZE * SIZE])  # and the last one is cut
    with FaceStore(tmp_path, SIZE) as store:
        assert store.find([key(seed) for seed in range(10)]).keys() == {key(s) for s in (0, 1, 2, 4, 5, 6, 7, 8)}


def test_a_file_that_is_cut_while_it_is_read_is_told(tmp_path: Path) -> None:
    with FaceStore(tmp_path / "x", SIZE) as store, ImagesWriter(tmp_path / "images.npy", SIZE) as images:
        keep(store, 1, 2)
        Path(store.file.path).write_bytes(face(1) + face(2)[:-1])
        with pytest.raises(StorageError, match="was cut while it was read"):
            store.copy([0, 1], images)


def test_a_disk_that_refuses_is_told() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(StorageError, match=r"/dev/full: a face could not be kept .*free some space"):
        write_face(FaceFile("/dev/full", Path("/dev/full").stat().st_ino), 0, face(1))


def test_a_folder_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / f"faces-{SIZE}.bin").mkdir()
    with pytest.raises(StorageError, match="remove it"):
        FaceStore(tmp_path, SIZE)


@pytest.mark.parametrize("lost", ["faces-64.bin", "faces-64.sqlite"])
@pytest.mark.parametrize("how", ["removed", "garbage"])
def test_a_lost_store_costs_time_and_never_a_face(
    lost: str, how: str, faces: dict[str, bytes], pack: Callable[..., Path], tmp_path: Path
) -> None:
    raw = pack(dict(list(faces.items())[:6]))
    look_and_align(raw, tmp_path)
    first = [(tmp_path / "aligned" / name).read_bytes() for name in ("images.npy", "manifest.csv")]
    path = tmp_path / "cache" / lost
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(bytes(range(256)) * 300)
    look_and_align(raw, tmp_path)
    assert [(tmp_path / "aligned" / name).read_bytes() for name in ("images.npy", "manifest.csv")] == first
