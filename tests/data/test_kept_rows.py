"""An archive that the last run read is not read again, and what comes out does not depend on it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lapcvae.data import known_digests
from lapcvae.data.collect import collect
from lapcvae.data.photographs import read_index
from lapcvae.data.taken import write_batch
from lapcvae.errors import SourceError
from lapcvae.io.atomic import sha256_file
from tests.data.flow import digests, is_as_afresh, source_of
from tests.data.test_sources import celeba

_COUNT = 1000  # small files do: nothing is decoded here


def _write(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo('people/a "link", 1.jpg')
        link.type, link.linkname = tarfile.SYMTYPE, "0001.jpg"
        tar.addfile(link)


def _files(first: int, last: int) -> dict[str, bytes]:
    small = {f"person {i % 40}/{i:04d}, é.jpg": f"photograph {i}".encode() * 20 for i in range(first, last)}
    return {f"person {first}/.hidden": b"x", f"person {first}/empty.jpg": b"", **small}


class Project:
    """An archive and two batches taken in after it, what `collect` makes of them, and its cache."""

    def __init__(self, work: Path) -> None:
        self.archive, self.taken, self.cache, self.raw = (work / n for n in ("a.tgz", "taken", "cache", "raw"))
        self._work, self._settings = work, dict[str, object]()
        self.taken.mkdir()
        _write(self.archive, _files(0, _COUNT))
        for first in (5000, 5100):
            self.take_in(first, first + 100)
        self.collect()

    def take_in(self, first: int, last: int) -> None:
        number, files = f"{len(list(self.taken.iterdir())) + 1:04d}", _files(first, last)
        for name, data in files.items():
            (self._work / number / name).parent.mkdir(parents=True, exist_ok=True)
            (self._work / number / name).write_bytes(data)
        tar = self._work / "batch.tar"
        write_batch(number, self._work / number, list(files), tar)
        tar.rename(self.taken / f"{number}-{sha256_file(tar)[:16]}.tar")

    def set(self, **settings: object) -> None:
        self._settings = settings

    def collect(self) -> set[str]:
        """Run it as `download` does; returns the shards that it wrote."""
        before = _inodes(self.raw)
        shutil.rmtree(self.raw, ignore_errors=True)
        collect(source_of(self.archive, **self._settings), self.raw, self.taken, self.cache)
        return {name for name, inode in _inodes(self.raw).items() if before.get(name) != inode}

    def check(self) -> None:
        assert is_as_afresh(self.raw, source_of(self.archive, **self._settings), self.taken)


def _inodes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.glob("*.bin")}


@pytest.fixture
def project(tmp_path: Path, at_once: None) -> Project:
    return Project(tmp_path)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that have just been written are told by their times."""
    monkeypatch.setattr(known_digests, "SETTLED_NS", -(10**9))


def test_known_archives_are_not_written_anew(project: Project) -> None:
    assert len(_inodes(project.raw)) > 10
    assert not project.collect()
    project.check()


def test_a_known_archive_is_not_read(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it was read")

    expected = digests(project.raw)
    with monkeypatch.context() as tripwires:
        tripwires.setattr(tarfile.TarFile, "next", never)
        tripwires.setattr(hashlib, "file_digest", never)
        project.set(sha256=sha256_file(project.archive).upper())
        project.collect()
        assert digests(project.raw) == expected
        project.take_in(6000, 6100)
        with pytest.raises(AssertionError, match="it was read"):
            project.collect()
    project.collect()
    project.check()


def test_an_archive_that_is_known_is_still_to_have_the_digest_that_is_asked_for(project: Project) -> None:
    project.set(sha256="ab" * 32)
    with pytest.raises(SourceError, match=r"SHA-256 is .*, not abab"):
        project.collect()


def test_a_known_batch_that_was_changed_is_told(project: Project) -> None:
    (batch, _) = sorted(project.taken.iterdir())
    times = batch.stat()
    with batch.open("r+b") as stream:
        stream.seek(2000)
        stream.write(b"another")
    os.utime(batch, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(SourceError, match=f"{batch.name}: damaged"):
        project.collect()


def test_a_known_download_is_not_wanted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "kept" / "a.tgz"
    archive.parent.mkdir()
    _write(archive, _files(0, 10))
    config = replace(
        source_of(tmp_path), kind="url", path="", url="http://127.0.0.1:9/a.tgz", sha256=sha256_file(archive)
    )
    monkeypatch.setenv("LAPCVAE_MIRRORS", str(archive.parent))
    made = []
    for run in ("first", "again"):
        collect(config, tmp_path / run, cache=tmp_path / "cache")
        made.append(digests(tmp_path / run))
        archive.unlink(missing_ok=True)
    assert made[0] == made[1]


def test_another_batch_leaves_all_shards_as_they_are(project: Project) -> None:
    before = _inodes(project.raw)
    project.take_in(6000, 6100)
    written = project.collect()
    assert written
    assert not written & before.keys()
    assert before.items() <= _inodes(project.raw).items()
    project.check()


def test_another_archive_is_read_and_the_batches_are_not(project: Project) -> None:
    before = _inodes(project.raw)
    _write(project.archive, _files(1, _COUNT))
    assert project.collect()
    project.check()
    batches = {entry.shard for entry in read_index(project.raw) if entry.name.startswith("000") and entry.shard}
    assert batches
    assert all(
        before[f"photographs-{shard}.bin"] == _inodes(project.raw)[f"photographs-{shard}.bin"] for shard in batches
    )


@pytest.mark.parametrize("settings", [{"identity": "none"}, {"max_file_bytes": 250}])
def test_with_other_settings_nothing_is_known(settings: dict[str, object], project: Project) -> None:
    project.set(**settings)
    before = digests(project.raw)["index.csv"]
    project.collect()
    assert digests(project.raw)["index.csv"] != before
    project.check()


def test_limits_hold_for_what_is_known_too(project: Project) -> None:
    project.set(max_members=500)
    with pytest.raises(SourceError, match="more than 500 members"):
        project.collect()


def _no_index(cache: Path) -> None:
    (cache / "index.csv").unlink()


def _another_digit_in_the_index(cache: Path) -> None:
    content = (cache / "index.csv").read_bytes()
    (cache / "index.csv").unlink()  # it is the same file as the one in the output
    (cache / "index.csv").write_bytes(content.replace(b"person 7", b"person 8", 1))


def _a_cut_index(cache: Path) -> None:
    content = (cache / "index.csv").read_bytes()
    (cache / "index.csv").unlink()
    (cache / "index.csv").write_bytes(content[:5000])


def _another_place(cache: Path) -> None:
    places = json.loads((cache / "rows.json").read_text())
    (cache / "rows.json").write_text(json.dumps({key: (0, end, sha) for key, (_, end, sha) in places.items()}))


def _no_places(cache: Path) -> None:
    (cache / "rows.json").write_text('{"a": [1')


def _other_places(cache: Path) -> None:
    (cache / "rows.json").write_text('{"a": [1, 2], "b": {}}')


def _no_place(cache: Path) -> None:
    places = json.loads((cache / "rows.json").read_text())
    (cache / "rows.json").write_text(json.dumps({key: (10**30, 10**31, sha) for key, (_, _, sha) in places.items()}))


def _a_list(cache: Path) -> None:
    (cache / "rows.json").write_text("[1, 2]")


def _no_digests(cache: Path) -> None:
    (cache / "digests.json").write_text('{"sha256 a": [1, 2, 3]}')
    _no_places(cache)


def _other_digests(cache: Path) -> None:
    known = json.loads((cache / "digests.json").read_text())
    assert len(known) == 3
    (cache / "digests.json").write_text(json.dumps({key: (state, "ab" * 32) for key, (state, _) in known.items()}))


def _a_shard_gone(cache: Path) -> None:
    sorted(cache.glob("*.bin"))[3].unlink()


def _a_shard_written_into(cache: Path) -> None:
    path = sorted(cache.glob("*.bin"))[3]
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    "damage",
    [
        _no_index,
        _another_digit_in_the_index,
        _a_cut_index,
        _another_place,
        _no_places,
        _other_places,
        _no_place,
        _a_list,
        _no_digests,
        _other_digests,
        _a_shard_gone,
        _a_shard_written_into,
    ],
)
def test_a_damaged_cache_costs_time_and_no_bytes(damage: Callable[[Path], None], project: Project) -> None:
    damage(project.cache)
    assert project.collect()
    project.check()
    assert not project.collect()  # it is mended
    project.check()


def test_an_archive_that_is_refused_as_a_whole_is_never_known(project: Project) -> None:
    project.archive.write_bytes(project.archive.read_bytes()[:-200])
    for _ in range(2):
        with pytest.raises(SourceError, match="truncated or damaged"):
            project.collect()


def test_what_the_makers_of_celeba_say_is_part_of_what_is_known(faces: dict[str, bytes], tmp_path: Path) -> None:
    celeba(tmp_path / "celeba", dict(list(faces.items())[:6]))
    config = replace(source_of(tmp_path), kind="celeba", path=str(tmp_path / "celeba"), verify=False)
    places = []
    for run in ("first", "again", "other"):
        if run == "other":
            partition = tmp_path / "celeba" / "list_eval_partition.txt"
            partition.write_text(partition.read_text().replace("000001.jpg 1", "000001.jpg 2"))
        shutil.rmtree(tmp_path / "raw", ignore_errors=True)
        collect(config, tmp_path / "raw", cache=tmp_path / "cache")
        places.append((_inodes(tmp_path / "raw"), [entry.split for entry in read_index(tmp_path / "raw")]))
    first, again, other = places
    assert again == first
    assert other[1] == ["test", *first[1][1:]]
