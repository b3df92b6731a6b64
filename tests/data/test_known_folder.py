"""What is known of a folder's files saves reading and writing them, and never changes what comes out."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapcvae.data import known_digests, photographs
from lapcvae.data.collect import collect
from lapcvae.data.photographs import read_index
from tests.data.flow import digests, is_as_afresh, source_of

_COUNT = 2000  # small files do: nothing is decoded here
_opened: set[str] | None = None


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], str):
        _opened.add(arguments[0])


sys.addaudithook(_hear)


class Project:
    """A folder of photographs, what `collect` makes of it, and its cache."""

    def __init__(self, work: Path) -> None:
        self.photographs, self.cache, self.raw = work / "photographs", work / "cache", work / "raw"
        for i in range(_COUNT):
            path = self.photographs / f"person {i % 400}" / f"{i:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"photograph {i}".encode() * 20)
        (self.photographs / "person 9" / "empty.jpg").touch()
        (self.photographs / "person 9" / "link.jpg").symlink_to("0009.jpg")
        time.sleep(2.1)  # files that have just been written are not told by their times
        self.collect()

    def collect(self) -> set[str]:
        """Run it as `download` does; returns which photographs were opened."""
        global _opened
        shutil.rmtree(self.raw, ignore_errors=True)
        _opened = set()
        try:
            collect(source_of(self.photographs), self.raw, cache=self.cache)
        finally:
            opened, _opened = _opened, None
        inside = [Path(path) for path in opened if str(self.photographs) in path and path.endswith(".jpg")]
        return {path.relative_to(self.photographs).as_posix() for path in inside}

    def check(self) -> None:
        """What came out is what comes out without a cache, and no more is kept."""
        assert is_as_afresh(self.raw, source_of(self.photographs))
        assert {path.name for path in self.cache.glob("*.bin")} == {path.name for path in self.raw.glob("*.bin")}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_known_files_are_not_read_and_their_shards_not_written(project: Project) -> None:
    first = {path.name: path.stat().st_ino for path in project.raw.glob("*.bin")}
    assert len(first) > 20
    assert not project.collect()
    assert {path.name: path.stat().st_ino for path in project.raw.glob("*.bin")} == first
    project.check()


def _add(photographs: Path) -> None:
    (photographs / "person 7" / "new.jpg").write_bytes(b"another")
    (photographs / "person 999").mkdir()
    (photographs / "person 999" / "new.jpg").write_bytes(b"one more")


def _change(photographs: Path) -> None:
    path = photographs / "person 20" / "0020.jpg"
    path.write_bytes(path.read_bytes()[::-1])


def _remove(photographs: Path) -> None:
    shutil.rmtree(photographs / "person 3")
    (photographs / "person 0" / "0000.jpg").unlink()


def _rename(photographs: Path) -> None:
    (photographs / "person 5").rename(photographs / "a person")


@pytest.mark.parametrize("do", [_add, _change, _remove, _rename])
def test_what_changes_in_the_folder_changes_the_shards_it_is_in(do: Callable[[Path], None], project: Project) -> None:
    before = digests(project.raw)
    do(project.photographs)
    opened = project.collect()
    project.check()
    after = digests(project.raw)
    kept = before.items() & after.items()
    assert len(kept) >= len(before) - 5  # the index, and at most two neighbours of each of two places
    assert 0 < len(opened) < _COUNT / 4  # those in the same shards


def _written_into(cache: Path) -> None:
    for path in cache.glob("*.bin"):
        path.write_bytes(bytes(path.stat().st_size))


def _gone(cache: Path) -> None:
    for path in cache.glob("*.bin"):
        path.unlink()


def _one_gone(cache: Path) -> None:
    sorted(cache.glob("*.bin"))[5].unlink()


def _no_states(cache: Path) -> None:
    (cache / "shards.json").write_text("[1")


def _no_index(cache: Path) -> None:
    (cache / "index.csv").unlink()


@pytest.mark.parametrize("damage", [_written_into, _gone, _one_gone, _no_states, _no_index])
def test_a_damaged_cache_costs_time_and_no_bytes(damage: Callable[[Path], None], project: Project) -> None:
    damage(project.cache)
    assert project.collect()
    project.check()
    assert not project.collect()  # it is mended
    project.check()


def test_a_file_that_has_just_been_written_is_read_again(project: Project) -> None:
    _add(project.photographs)
    project.collect()
    assert {"person 7/new.jpg", "person 999/new.jpg"} <= project.collect()


def test_a_file_that_could_not_be_read_is_tried_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.open

    def fails(path: str, *arguments: int, **named: int) -> int:
        if str(path).endswith("0020.jpg"):
            raise OSError(errno.EIO, "Input/output error")
        return really(path, *arguments, **named)

    shutil.rmtree(project.cache)
    with monkeypatch.context() as disk:
        disk.setattr(os, "open", fails)
        project.collect()
    assert {e.name: e.reason for e in read_index(project.raw)}["person 20/0020.jpg"] == "unreadable"
    assert "person 20/0020.jpg" in project.collect()
    project.check()


def test_of_large_photographs_only_new_ones_are_read(project: Project) -> None:
    large = project.photographs / "large"
    large.mkdir()
    for i in range(20):
        (large / f"{i}.jpg").write_bytes(bytes([i]) * (1 << 20))
    time.sleep(2.1)
    project.collect()
    (large / "10+.jpg").write_bytes(b"more" * (1 << 18))
    assert project.collect() == {"large/10+.jpg"}
    project.check()


_names = st.sampled_from(
    ["a", "b", "B", "a b", "a\nb", "\u00e9", "e\u0301", "c.jpg", ".d", "-e"]
)  # few: some come again
_files = st.dictionaries(_names, st.integers(0, 3), max_size=6)  # what is in a file, by its name
_trees = st.dictionaries(_names, st.one_of(st.integers(0, 3), _files), max_size=6)


@settings(deadline=None)  # it makes files: a disk that others use takes its time
@given(_trees, st.lists(_trees, min_size=1, max_size=3))
def test_whatever_was_there_before_what_comes_out_is_of_what_is_there(
    first: dict[str, Any], later: list[dict[str, Any]]
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as at_once:
        at_once.setattr(known_digests, "SETTLED_NS", -(10**9))  # what has just been written is told by its times
        at_once.setattr(photographs, "_SHARD_PHOTOGRAPHS", 2)
        work = Path(folder)
        for tree in (first, *later):
            _make(work / "in", {"always": 1, **tree})
            collect(source_of(work / "in"), work / "raw", cache=work / "cache")
            assert is_as_afresh(work / "raw", source_of(work / "in"))


def _make(top: Path, tree: dict[str, Any]) -> None:
    """Make a folder hold what `tree` says; files that are right already are left alone."""
    top.mkdir(exist_ok=True)
    for path in top.iterdir():
        if isinstance(tree.get(path.name), dict) != path.is_dir() or path.name not in tree:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, inside in tree.items():
        if isinstance(inside, dict):
            _make(top / name, inside)
        elif (data := f"{name}\n".encode() * inside) != ((top / name).read_bytes() if (top / name).exists() else None):
            (top / name).write_bytes(data)
