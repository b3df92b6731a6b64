"""Where checkpoints lie until a training is done: in the project, also for a copy of it that DVC will throw away."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lapcvae.errors import TrainingError
from lapcvae.training.scratch import SCRATCH, measured, scratch_folder

KEY = "0123456789abcdef0123"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def _in_use(folder: Path) -> Iterator[None]:
    """As another process would have it: of one file opened twice, each has a lock of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _stopped(name: str, key: str) -> Path:
    found: list[Path] = []
    with contextlib.suppress(KeyboardInterrupt), scratch_folder(name, key) as folder:
        found.append(folder)
        (folder / "checkpoint").touch()
        raise KeyboardInterrupt
    return found[0]


def test_a_copy_made_by_dvc_leaves_its_checkpoints_to_the_project(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        copy = project / ".dvc/tmp/exps/standalone/abc"
        copy.mkdir(parents=True)
        monkeypatch.chdir(copy)
        assert measured() == project / ".cache/precision.json"
        found = _stopped("level3", KEY)
        assert found == project / SCRATCH / "level3" / KEY[:16]
        monkeypatch.chdir(project)
        shutil.rmtree(copy)
        assert (found / "checkpoint").exists()
    with scratch_folder("level3", KEY) as folder:
        assert (folder / "checkpoint").exists()
    assert not folder.exists()


def test_two_experiments_that_train_the_same_are_not_in_each_others_way(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = project / ".dvc/tmp/exps/standalone/abc"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with _in_use(project / SCRATCH / "level3" / KEY[:16]), scratch_folder("level3", KEY) as folder:
        assert folder == copy / SCRATCH / "level3" / KEY[:16]


def test_two_that_train_the_same_in_one_project_are_one_too_many(project: Path) -> None:
    taken = project / SCRATCH / "level3" / KEY[:16]
    with (
        _in_use(taken),
        pytest.raises(TrainingError, match="another process is training it with the same settings"),
        scratch_folder("level3", KEY),
    ):
        pass


def test_the_newest_are_kept_and_those_in_use(project: Path) -> None:
    folders = [_stopped("level3", f"{i}" * 20) for i in range(3)]
    for age, folder in enumerate(reversed(folders)):  # further apart than a file system's clock ticks
        os.utime(folder, (1e9 - age, 1e9 - age))
    with _in_use(folders[0]):
        _stopped("level3", "3" * 20)
        assert [folder.exists() for folder in folders] == [True, True, True]
        _stopped("level3", "4" * 20)
    assert [folder.exists() for folder in folders] == [True, False, True]
    _stopped("level3", "4" * 20)
    assert [folder.exists() for folder in folders] == [False, False, True]
