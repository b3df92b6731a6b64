"""Files that appear whole or not at all: written aside, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lapcvae.errors import StorageError

_CHUNK = 1 << 20


_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EFBIG: "the file would be larger than the system allows",
    errno.EACCES: "no permission to write there; check the owner of the folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOTDIR: "a file stands where a folder is needed; move it away",
    errno.EEXIST: "a file stands where a folder is needed; move it away",
    errno.EISDIR: "a folder stands where a file is needed; move it away",
}


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into a `StorageError`; let other errors of the body through."""
    try:
        yield
    except OSError as error:
        if error.errno not in _ADVICE:
            raise
        advice = _ADVICE[error.errno]
        raise StorageError(f"could not write {path}: {advice}. Nothing half-written was left in its place") from error


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to write a file at; on success it becomes `path`, on failure it is removed.

    Raises `StorageError` when the file system refuses (disk full, no permission).
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        with told(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial")
            os.close(handle)
            temporary = Path(name)
            yield temporary
            temporary.chmod(0o644)
            _fsync(temporary)
            temporary.replace(target)
            _fsync(target.parent)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield a temporary sibling folder; on success it replaces `path` whole, on failure it is removed.

    Hard links in it must be to files that have been flushed.

    Raises `StorageError` when the file system refuses.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        with told(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial"))
            yield temporary
            temporary.chmod(0o755)
            _flush(temporary)
            if target.is_dir():
                shutil.rmtree(target)
            temporary.replace(target)
            _fsync(target.parent)
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text whole or not at all. Raises `StorageError`."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON with sorted keys and no NaN, so that equal values are equal bytes. Raises `StorageError`."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256_file(path: Path | str) -> str:
    """Hex SHA-256 of a file, read in chunks."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _flush(folder: Path) -> None:
    """Flush a folder and all in it, but for hard links."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                _flush(Path(entry.path))
            elif entry.stat().st_nlink == 1:
                _fsync(Path(entry.path))
    _fsync(folder)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
