"""What is known of a folder's files saves reading and writing them, and never changes what comes out."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapcvae.data.collect import collect
from lapcvae.data.known_files import KnownFiles
from lapcvae.data.names import printable
from lapcvae.data.sources import folder_members
from lapcvae.io.atomic import sha256_file
from tests.data.flow import source_of

_COUNT = 2000  # small files do: nothing is decoded here
_opened: set[str] | None = None


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], str):
        _opened.add(arguments[0])


sys.addaudithook(_hear)


class Project:
    """A folder of photographs, what `collect` makes of it, and its cache."""

    def __init__(self, work: Path) -> None:
        self.photographs, self.cache, self.raw, self._work = work / "photographs", work / "cache", work / "raw", work
        for i in range(_COUNT):
            path = self.photographs / f"person {i % 400}" / f"{i:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"photograph {i}".encode() * 20)
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
        return {Path(path).relative_to(self.photographs).as_posix() for path in opened if str(self.photographs) in path}

    def check(self) -> None:
        """What came out is what comes out without a cache."""
        shutil.rmtree(self._work / "afresh", ignore_errors=True)
        collect(source_of(self.photographs), self._work / "afresh")
        assert _digests(self.raw) == _digests(self._work / "afresh")


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.iterdir()}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_known_files_are_not_read_and_their_shards_not_written(project: Project) -> None:
    first = {path.name: path.stat().st_ino for path in project.raw.glob("*.bin")}
    assert len(first) > 20
    assert not {name for name in project.collect() if name.endswith(".jpg")}
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
    before = _digests(project.raw)
    do(project.photographs)
    opened = project.collect()
    project.check()
    after = _digests(project.raw)
    kept = before.items() & after.items()
    assert len(kept) >= len(before) - 5  # the index, and at most two neighbours of each of two places
    assert len({name for name in opened if name.endswith(".jpg")}) < _COUNT / 4  # those in the same shards


def _wrong_digest(project: Project) -> None:
    path = project.cache / "files.txt"
    lines = path.read_text().splitlines(keepends=True)
    lines[100] = lines[100][:-2] + ("0" if lines[100][-2] != "0" else "1") + "\n"
    path.write_text("".join(lines))


def _wrong_digest_in_a_whole_list(project: Project) -> None:
    _wrong_digest(project)
    path = project.cache / "files.txt"
    before = "".join(path.read_text().splitlines(keepends=True)[:-1])
    path.write_text(f"{before}\t\t{hashlib.sha256(before.encode()).hexdigest()}\n")


def _other_lines(project: Project) -> None:
    path = project.cache / "files.txt"
    path.write_bytes(path.read_bytes()[:5000] + b"\xff\x00nonsense\n\n")


def _written_into(project: Project) -> None:
    for path in project.cache.glob("*.bin"):
        path.write_bytes(bytes(path.stat().st_size))


def _gone(project: Project) -> None:
    for path in project.cache.glob("*.bin"):
        path.unlink()


def _no_states(project: Project) -> None:
    (project.cache / "shards.json").write_text("[1")


@pytest.mark.parametrize(
    "damage", [_wrong_digest, _wrong_digest_in_a_whole_list, _other_lines, _written_into, _gone, _no_states]
)
def test_a_damaged_cache_costs_time_and_no_bytes(damage: Callable[[Project], None], project: Project) -> None:
    damage(project)
    project.collect()
    project.check()
    assert not {name for name in project.collect() if name.endswith(".jpg")}  # it is mended
    project.check()


def test_a_file_that_has_just_been_written_is_read_again(project: Project) -> None:
    _add(project.photographs)
    project.collect()
    assert {"person 7/new.jpg", "person 999/new.jpg"} <= project.collect()


_names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=6).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)
_trees = st.dictionaries(_names, st.one_of(st.none(), st.sets(_names, max_size=4)), max_size=6)


@settings(deadline=None)  # it makes files: a disk that others use takes its time
@given(_trees, _trees)
def test_of_two_folders_what_both_have_is_known(before: dict[str, set[str]], after: dict[str, set[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        old = list(_walked(Path(folder, "before"), before))
        new = list(_walked(Path(folder, "after"), after))
        path = Path(folder, "files.txt")
        with KnownFiles(path) as files:
            for name in old:
                files.note(name, "state", f"digest of {printable(name)}")
        with KnownFiles(path) as files:
            found = {name: files.digest_of(name, "state") for name in new}
    assert found == {name: f"digest of {printable(name)}" if name in old else "" for name in new}


def _walked(top: Path, tree: dict[str, set[str] | None]) -> Iterator[str]:
    top.mkdir()
    for name, inside in tree.items():
        if inside is None:
            (top / name).touch()
            continue
        (top / name).mkdir()
        for each in inside:
            (top / name / each).touch()
    return (member.name for member in folder_members(top, 1000))
