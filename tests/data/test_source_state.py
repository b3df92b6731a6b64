"""The state of a source is another when something in it is, and what lies in it is not opened to tell."""

from __future__ import annotations

import os
import shutil
import socket
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lapcvae.data import known_digests, source_state
from lapcvae.data.source_state import state_of_source
from lapcvae.errors import SourceError
from tests.data.flow import source_of


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Some files that have just been written, whose times are believed all the same."""
    monkeypatch.setattr(known_digests, "SETTLED_NS", -(10**9))
    monkeypatch.setattr(source_state, "SETTLED_NS", 0)
    for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg"):
        path = tmp_path / "photographs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    time.sleep(0.05)  # the system notes times to some milliseconds
    return tmp_path / "photographs"


def _edit(folder: Path) -> None:
    path = folder / "a/1.jpg"
    times = path.stat()
    path.write_bytes(b"A/1.jpg")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _link(folder: Path) -> None:
    (folder / "link").symlink_to("/nowhere")


CHANGES: dict[str, Callable[[Path], object]] = {
    "added": lambda folder: (folder / "b/4.jpg").write_bytes(b"4"),
    "taken away": lambda folder: (folder / "b/3.jpg").unlink(),
    "renamed": lambda folder: (folder / "b/3.jpg").rename(folder / "b/4.jpg"),
    "moved to another person": lambda folder: (folder / "b/3.jpg").rename(folder / "a/3.jpg"),
    "written into, its size and time as before": _edit,
    "a link": _link,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_folder_is_another_when_something_in_it_is(folder: Path, change: Callable[[Path], object]) -> None:
    before = state_of_source(source_of(folder))
    assert state_of_source(source_of(folder)) == before
    change(folder)
    assert state_of_source(source_of(folder)) != before


def test_what_is_no_file_is_neither_opened_nor_followed(folder: Path) -> None:
    os.mkfifo(folder / "fifo.jpg")
    (folder / "root").symlink_to("/")
    (folder / "dangling.jpg").symlink_to("/nowhere")
    (folder / os.fsdecode(b"\xff\xfe.jpg")).write_bytes(b"no UTF-8")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "s"))
        assert state_of_source(source_of(folder)) == state_of_source(source_of(folder))


def test_an_archive_is_what_is_in_it(folder: Path, tmp_path: Path) -> None:
    archive, cache = tmp_path / "photographs.tar", tmp_path / "cache"
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, "photographs")
    before = state_of_source(source_of(archive), cache)
    shutil.copy(archive, tmp_path / "copy.tar")
    assert state_of_source(source_of(tmp_path / "copy.tar"), cache) == before
    with archive.open("ab") as stream:
        stream.write(b"\0" * 512)
    assert state_of_source(source_of(archive), cache) != before


def test_what_was_changed_just_now_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (known_digests, source_state):
        monkeypatch.setattr(module, "SETTLED_NS", 10**9)
    (folder / "a/1.jpg").write_bytes(b"new")
    assert state_of_source(source_of(folder)) == state_of_source(source_of(folder))


def test_what_cannot_be_told_is_another_each_time(folder: Path) -> None:
    missing = source_of(folder / "photographs.tar")
    assert state_of_source(missing) != state_of_source(missing)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no such folder; check source\.path"):
        state_of_source(source_of(tmp_path / "none", kind="folder"))
