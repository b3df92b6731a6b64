"""Digests that are kept are those of what lies there now."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lapcvae.data import known_digests
from lapcvae.data.known_digests import KnownDigests
from lapcvae.io.atomic import sha256_file


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that has just been written, and whose times are believed all the same."""
    monkeypatch.setattr(known_digests, "SETTLED_NS", -(10**9))
    path = tmp_path / "archive.tar"
    path.write_bytes(b"photographs")
    time.sleep(0.05)  # the system notes times to some milliseconds
    return path


def _run(path: Path, cache: Path) -> str:
    digests = KnownDigests(cache)
    found = digests.sha256(path)
    digests.keep()
    return found


def _never(*_: object) -> None:
    raise AssertionError("it was read")


def test_a_file_is_read_once(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _run(path, tmp_path / "cache")
    assert first == sha256_file(path)
    monkeypatch.setattr(hashlib, "file_digest", _never)
    assert _run(path, tmp_path / "cache") == first
    with pytest.raises(AssertionError, match="it was read"):
        KnownDigests(tmp_path / "cache").md5(path)


def _written_into(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.write(b"P")


def _replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"PHOTOGRAPHS")
    other.replace(path)


def _grown(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"!")


@pytest.mark.parametrize("change", [_written_into, _replaced, _grown])
def test_a_changed_file_is_read_again_though_its_time_was_put_back(
    change: Callable[[Path], None], path: Path, tmp_path: Path
) -> None:
    first, times = _run(path, tmp_path / "cache"), path.stat()
    change(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert _run(path, tmp_path / "cache") == sha256_file(path) != first


def test_what_has_just_been_written_is_not_believed(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    path.write_bytes(b"other photographs")
    _run(path, tmp_path / "cache")
    monkeypatch.setattr(hashlib, "file_digest", _never)
    with pytest.raises(AssertionError, match="it was read"):
        _run(path, tmp_path / "cache")


def test_a_file_that_changes_while_it_is_read_is_not_believed(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = hashlib.file_digest

    def amid(*arguments: object) -> object:
        found = plain(*arguments)  # type: ignore[arg-type]
        _written_into(path)
        return found

    with monkeypatch.context() as writing:
        writing.setattr(hashlib, "file_digest", amid)
        _run(path, tmp_path / "cache")
    assert _run(path, tmp_path / "cache") == sha256_file(path)


def test_what_is_kept_of_a_file_goes_when_it_does(path: Path, tmp_path: Path) -> None:
    _run(path, tmp_path / "cache")
    other = tmp_path / "other.tar"
    other.write_bytes(b"others")
    time.sleep(0.05)
    _run(other, tmp_path / "cache")
    kept = tmp_path / "cache" / "digests.json"
    assert str(path) in kept.read_text()
    assert str(other) in kept.read_text()
    _written_into(path)
    other.unlink()
    KnownDigests(tmp_path / "cache").keep()
    assert kept.read_text() == "{}"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"sha256 a": 1}', '{"sha256 a": ["x"]}', "\x00"])
def test_a_damaged_cache_costs_time_only(text: str, path: Path, tmp_path: Path) -> None:
    _run(path, tmp_path / "cache")
    (tmp_path / "cache" / "digests.json").write_text(text)
    assert _run(path, tmp_path / "cache") == sha256_file(path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        KnownDigests(tmp_path).sha256(tmp_path / "none.tar")
