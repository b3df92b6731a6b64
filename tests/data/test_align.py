"""Photographs to aligned faces: the account adds up, the same input gives the same bytes, old splits stay."""

from __future__ import annotations

import hashlib
import io
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lapcvae.data.executor import ExecutorConfig
from lapcvae.data.manifest import read_manifest
from lapcvae.data.sight import HEADER, Face, Sight, line_of, read_sights
from lapcvae.errors import DataError
from lapcvae.io.atomic import sha256_file
from tests.data import flow, made
from tests.data.flow import look_and_align

Pack = Callable[..., Path]


def digests(work: Path) -> dict[str, str]:
    names = ("landmarks.csv", "aligned/images.npy", "aligned/manifest.csv")
    return {name: sha256_file(work / name) for name in names}


def test_rows_and_images_belong_together(faces: dict[str, bytes], pack: Pack, tmp_path: Path) -> None:
    counts = look_and_align(pack(faces), tmp_path)
    rows = list(read_manifest(tmp_path / "aligned" / "manifest.csv"))
    images = np.load(tmp_path / "aligned" / "images.npy", mmap_mode="r")
    assert [r.name for r in rows] == list(faces)
    accepted = [r for r in rows if r.status == "accepted"]
    assert counts["accepted"] == len(accepted) == len(images) >= 38
    assert images.shape[1:] == (64, 64, 3)
    assert images.dtype == np.uint8
    assert [r.row for r in accepted] == list(range(len(images)))
    for row in accepted:
        assert hashlib.sha256(images[row.row].tobytes()).hexdigest() == row.aligned_sha256
        assert row.group == row.identity == row.name.split("/")[-2]
        assert row.split in ("train", "val", "test")
        assert 0 < row.residual < 0.25
        assert 25 < row.eye_distance_px < 80
    # An aligned mean face is a face: dark eyes where the template has them, brighter cheeks between.
    mean = images.mean(axis=(0, 3))
    eye, cheek = mean[29:33, 22:26].mean(), mean[38:42, 20:24].mean()
    assert cheek > eye + 15


def test_processes_and_caches_change_no_byte(faces: dict[str, bytes], pack: Pack, tmp_path: Path) -> None:
    raw = pack(faces)
    look_and_align(raw, tmp_path / "one")
    look_and_align(raw, tmp_path / "two", ExecutorConfig("processes", 2))
    first = digests(tmp_path / "one")
    assert digests(tmp_path / "two") == first
    look_and_align(raw, tmp_path / "one")  # from the cache
    assert digests(tmp_path / "one") == first


def test_adding_photographs_moves_nothing_old(faces: dict[str, bytes], pack: Pack, tmp_path: Path) -> None:
    names = list(faces)
    old = {n: faces[n] for n in names[10:30]}
    look_and_align(pack(old, "old"), tmp_path)
    before = {r.name: r for r in read_manifest(tmp_path / "aligned" / "manifest.csv")}
    # New ones before, between and after, among them a known photograph of the same person in another form.
    again = {"a/Same_Again.png": made.encode(Image.open(io.BytesIO(old[names[12]])))}
    person = names[12].split("/")[-2]
    more = {f"a/{person}/again.png": next(iter(again.values()))}
    grown = {**{n: faces[n] for n in names[:10]}, **old, **more, **{n: faces[n] for n in names[30:]}}
    look_and_align(pack(grown, "grown"), tmp_path)
    after = {r.name: r for r in read_manifest(tmp_path / "aligned" / "manifest.csv")}
    assert len(after) == 41
    for name, row in before.items():
        assert (after[name].status, after[name].split, after[name].aligned_sha256) == (
            row.status,
            row.split,
            row.aligned_sha256,
        )
    assert after[f"a/{person}/again.png"].reason == "duplicate"


def test_rows_keep_their_images_when_duplicates_are_taken_out(
    faces: dict[str, bytes], pack: Pack, tmp_path: Path
) -> None:
    names = list(faces)[:8]
    odd = ('a, "b"', "c,d", 'e"f', "g", "h,", '"', "i", "j,k")
    photographs = {f"{who}/1.jpg": faces[name] for who, name in zip(odd, names, strict=True)}
    photographs |= {f"{who}/2.jpg": faces[name] for who, name in list(zip(odd, names, strict=True))[::2]}
    raw = pack(dict(sorted(photographs.items())))
    assert look_and_align(raw, tmp_path) == {"accepted": 8, "duplicate": 4}
    rows = list(read_manifest(tmp_path / "aligned" / "manifest.csv"))
    images = np.load(tmp_path / "aligned" / "images.npy")
    assert [row.name for row in rows] == sorted(photographs)
    assert len(images) == 8
    for row in rows:
        if row.status == "accepted":
            assert hashlib.sha256(images[row.row].tobytes()).hexdigest() == row.aligned_sha256
            assert row.group == row.identity == row.name.split("/")[0]
            assert bool(row.near) == (row.name.split("/")[0] in odd[::2])


def test_adding_photographs_of_unknown_people_moves_nothing_old(
    faces: dict[str, bytes], pack: Pack, tmp_path: Path
) -> None:
    flat = {name.split("/")[-1]: data for name, data in faces.items()}
    names = list(flat)
    look_and_align(pack({n: flat[n] for n in names[10:30]}, "old"), tmp_path)
    before = {r.name: r for r in read_manifest(tmp_path / "aligned" / "manifest.csv")}
    look_and_align(pack(flat, "grown"), tmp_path)
    after = {r.name: r for r in read_manifest(tmp_path / "aligned" / "manifest.csv")}
    assert len(after) == 40
    assert len({row.split for row in before.values()}) > 1
    for name, row in before.items():
        assert (after[name].status, after[name].split) == (row.status, row.split)


def test_unknown_people_are_split_by_photograph(faces: dict[str, bytes], pack: Pack, tmp_path: Path) -> None:
    look_and_align(pack({n.split("/")[-1]: data for n, data in faces.items()}), tmp_path)
    accepted = [r for r in read_manifest(tmp_path / "aligned" / "manifest.csv") if r.status == "accepted"]
    assert len({r.group for r in accepted}) == len(accepted)
    assert {r.group for r in accepted} == {r.pixels_sha256 for r in accepted}


def test_near_duplicates_of_two_people_never_stand_in_two_splits(
    faces: dict[str, bytes], pack: Pack, tmp_path: Path
) -> None:
    # Each photograph again under 8 other names, each time stored a little differently: some fall into other splits.
    photographs = {}
    for name in list(faces)[:4]:
        image = Image.open(io.BytesIO(faces[name]))
        for quality in range(60, 100, 5):
            photographs[f"{name}-{quality}/{quality}.jpg"] = made.encode(image, "JPEG", quality=quality)
    counts = look_and_align(pack(photographs), tmp_path)
    rows = list(read_manifest(tmp_path / "aligned" / "manifest.csv"))
    assert counts["near_duplicate_across_splits"] > 0
    near: dict[str, set[str]] = {}
    for row in rows:
        if row.status == "accepted":
            near.setdefault(row.near, set()).add(row.split)
    assert len(near) == 4
    assert all(len(splits) == 1 for splits in near.values())


def test_the_central_face_is_taken(faces: dict[str, bytes], pack: Pack, tmp_path: Path) -> None:
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in list(faces.values())[:3]]
    group = Image.new("RGB", (750, 250))
    for i, image in enumerate(images):
        group.paste(image, (250 * i, 0))
    look_and_align(pack({"group.png": made.encode(group), "alone.png": made.encode(images[1])}), tmp_path)
    rows = list(read_manifest(tmp_path / "aligned" / "manifest.csv"))
    assert rows[0].faces >= 3
    both = np.load(tmp_path / "aligned" / "images.npy").astype(float)
    assert np.abs(both[0] - both[1]).mean() < 12  # the same face, give or take the detector's pixel


def test_another_size_is_the_same_crop(faces: dict[str, bytes], pack: Pack, tmp_path: Path) -> None:
    raw = pack(dict(list(faces.items())[:5]))
    look_and_align(raw, tmp_path / "64")
    look_and_align(raw, tmp_path / "128", size=128)
    small, large = (np.load(tmp_path / s / "aligned" / "images.npy").astype(float) for s in ("64", "128"))
    assert large.shape == (5, 128, 128, 3)
    halved = large.reshape(5, 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(halved - small).mean() < 2


def test_landmarks_of_other_photographs_are_told(faces: dict[str, bytes], pack: Pack, tmp_path: Path) -> None:
    names = list(faces)
    look_and_align(pack({n: faces[n] for n in names[:2]}, "a"), tmp_path)
    other = pack({n: faces[n] for n in names[2:4]}, "b")
    (tmp_path / "cache2").mkdir()
    with pytest.raises(DataError, match="run `dvc repro landmarks`"):
        flow.align(
            flow.AlignInputs(other, tmp_path / "landmarks.csv", "test"),
            tmp_path / "out",
            tmp_path / "cache2",
            flow.load(flow.AlignConfig, "align", flow.PARAMS),
            flow.load(flow.DecodeConfig, "decode", flow.PARAMS),
            flow.load(flow.SplitConfig, "split", flow.PARAMS),
            flow.load(flow.DuplicatesConfig, "duplicates", flow.PARAMS),
            flow.HERE,
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text",
    ["sha256,reason\n", f"{','.join(Sight._fields)}\na,b\n", f"{','.join(Sight._fields)}\na,,5,5,1.0,p,h,0.9 1\n"],
)
def test_a_damaged_file_of_landmarks_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(DataError, match="run `dvc repro --force landmarks`"):
        list(read_sights(tmp_path / "l.csv"))


def test_sights_come_back_as_they_were(tmp_path: Path) -> None:
    face = Face(0.9871, (1.5, -2.25, 30.0, 1e-7), tuple(map(float, range(10))))
    sights = [
        Sight("a" * 64, "", 250, 251, 1234.567, "b" * 64, "c" * 64, (face, face._replace(score=1.0))),
        Sight("d" * 64, "", 32, 32, 0.0, "e" * 64, "f" * 64),
        Sight("0" * 64, "truncated"),
    ]
    (tmp_path / "l.csv").write_text(HEADER + "".join(map(line_of, sights)))
    assert list(read_sights(tmp_path / "l.csv")) == sights


def test_new_photographs_alone_are_looked_at_and_aligned(faces: dict[str, bytes], pack: Pack, tmp_path: Path) -> None:
    names = list(faces)
    look_and_align(pack({n: faces[n] for n in names[5:15]}, "old"), tmp_path)
    kept = {table: entries(tmp_path / "cache" / table) for table in ("sights.sqlite", "faces-64.sqlite")}
    assert {len(keys) for keys in kept.values()} == {10}
    look_and_align(pack({n: faces[n] for n in names[:18]}, "grown"), tmp_path)
    for table, keys in kept.items():
        now = entries(tmp_path / "cache" / table)
        assert len(now) == 18
        assert now[:10] == keys  # what was there was not written again


def test_a_file_that_comes_again_is_looked_at_once(
    faces: dict[str, bytes], pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lapcvae.data.landmarks._BATCH", 2)
    a, b, c = list(faces.values())[:3]
    raw = pack({f"{i}.jpg": data for i, data in enumerate([a, b, a, b, c, a, a])})
    settings = (
        flow.load(flow.DecodeConfig, "decode", flow.PARAMS),
        flow.load(flow.DetectorConfig, "detector", flow.PARAMS),
    )
    assert flow.find_landmarks(raw, tmp_path / "l.csv", tmp_path / "s.sqlite", *settings, flow.HERE) == (7, 3)
    found = [sight.sha256 for sight in read_sights(tmp_path / "l.csv")]
    assert found == [hashlib.sha256(data).hexdigest() for data in (a, b, a, b, c, a, a)]
    counts = look_and_align(raw, tmp_path)
    assert counts == {"accepted": 3, "duplicate": 4}


@pytest.mark.parametrize("lost", ["faces-64.pixels.bin", "faces-64.sqlite"])
@pytest.mark.parametrize("how", ["removed", "garbage"])
def test_a_lost_store_costs_time_and_never_a_face(
    lost: str, how: str, faces: dict[str, bytes], pack: Pack, tmp_path: Path
) -> None:
    raw = pack(dict(list(faces.items())[:6]))
    look_and_align(raw, tmp_path)
    first = digests(tmp_path)
    path = tmp_path / "cache" / lost
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(bytes(range(256)) * 300)
    look_and_align(raw, tmp_path)
    assert digests(tmp_path) == first


def entries(cache: Path) -> list[tuple[int, bytes]]:
    """The rows of a cache in the order they were written."""
    with closing(sqlite3.connect(cache)) as db:
        table, order = ("records", "place") if cache.name.startswith("faces") else ("entries", "rowid")
        return list(db.execute(f"SELECT {order}, key FROM {table} ORDER BY {order}"))
