"""Files and folders appear whole or not at all."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lapcvae.errors import StorageError
from lapcvae.io.atomic import atomic_folder, atomic_path, sha256_file, write_json, write_text


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(FileNotFoundError), atomic_path(target) as temporary:
        temporary.write_text((tmp_path / "none").read_text())
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "data"
    for content in ("one", "two"):
        with atomic_folder(target) as folder:
            (folder / content).write_text(content)
    assert [p.name for p in target.iterdir()] == ["two"]
    with pytest.raises(FileNotFoundError), atomic_folder(target) as folder:
        shutil.copytree(tmp_path / "none", folder / "three")
    assert [p.name for p in target.iterdir()] == ["two"]
    assert list(tmp_path.iterdir()) == [target]


def test_equal_values_are_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": 1, "a": [1.5, "é"]})
    write_json(tmp_path / "b", {"a": [1.5, "é"], "b": 1})
    assert sha256_file(tmp_path / "a") == sha256_file(tmp_path / "b")
    assert json.loads((tmp_path / "a").read_text()) == {"a": [1.5, "é"], "b": 1}


def test_a_file_in_the_way_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        write_text(tmp_path / "data" / "a.txt", "text")


def test_a_folder_in_the_way_of_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(StorageError, match="a folder stands where a file is needed"):
        write_text(tmp_path / "a.txt", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("folder", [False, True])
def test_what_a_name_promises_is_on_the_disk_before_it(
    tmp_path: Path, folder: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut may lose what was not flushed: contents are flushed, then the name is given, then it is flushed."""
    events: list[tuple[str, str]] = []
    fsync, replace = os.fsync, Path.replace

    def flushed(handle: int) -> None:
        events.append(("flush", Path(f"/dev/fd/{handle}").resolve().name))
        fsync(handle)

    def renamed(self: Path, target: Path) -> Path:
        events.append(("rename", target.name))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    target = tmp_path / "a"
    if folder:
        write_text(tmp_path / "earlier", "y")
        events.clear()
        with atomic_folder(target) as partial:
            (partial / "weights").write_text("x")
            (partial / "earlier").hardlink_to(tmp_path / "earlier")  # is on the disk already
        flushes = ["weights", partial.name]
    else:
        with atomic_path(target) as partial:
            partial.write_text("x")
        flushes = [partial.name]
    assert events == [*(("flush", name) for name in flushes), ("rename", "a"), ("flush", tmp_path.name)]


def test_a_disk_that_takes_no_more_leaves_nothing(tmp_path: Path) -> None:
    # A limit on file size is the full disk that any test can make: writes beyond it fail in the middle.
    script = (
        "import sys; from lapcvae.io.atomic import write_text; from lapcvae.errors import StorageError\n"
        "try: write_text(sys.argv[1], 'x' * 100_000)\n"
        "except StorageError as error: print(error); sys.exit(error.exit_code)\n"
    )
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = subprocess.run(
        [sys.executable, "-c", script, str(target)], preexec_fn=limit, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert "could not write" in done.stdout
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
