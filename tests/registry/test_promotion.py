"""Champion and previous: every move whole, finished after an interruption, and never without a champion."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lapcvae.errors import RegistryError
from lapcvae.registry import promotion
from lapcvae.registry.models import DamagedVersionError
from lapcvae.registry.promotion import Standing
from lapcvae.registry.store import open_client

ROOT = Path(__file__).parents[2]
NAME = "lapcvae"


def now() -> tuple[int | None, int | None]:
    found = promotion.standing(NAME)
    return found.champion, found.previous


def test_a_model_nobody_registered_has_no_champion(project: Path) -> None:
    assert promotion.standing(NAME) == Standing(None, None, None)


def test_promoting_moves_the_old_champion_to_previous_and_twice_changes_nothing(make: Callable) -> None:
    make(1), make(2)
    assert now() == (None, None)
    assert promotion.promote(NAME, 1, "first")
    assert now() == (1, None)
    assert promotion.promote(NAME, 2, "better")
    assert now() == (2, 1)
    assert not promotion.promote(NAME, 2, "better")
    assert now() == (2, 1)
    assert promotion.tags_of(NAME, 2)["champion_because"] == "better"


def test_a_champion_that_changed_while_a_challenger_was_measured_is_not_replaced(make: Callable) -> None:
    make(1), make(2), make(3)
    promotion.promote(NAME, 1, "first"), promotion.promote(NAME, 2, "better")
    measured = promotion.standing(NAME)
    promotion.rollback(NAME)
    with pytest.raises(RegistryError, match=r"measured against version 2, and version 1 has become champion since"):
        promotion.promote(NAME, 3, "better than 2", measured)
    assert now() == (1, None)
    assert promotion.promote(NAME, 3, "better than 1", promotion.standing(NAME))
    assert now() == (3, 1)


def test_each_rollback_goes_one_champion_back_and_marks_the_one_left(make: Callable) -> None:
    for seed in (1, 2, 3):
        make(seed)
        promotion.promote(NAME, seed, "better")
    assert promotion.rollback(NAME) == (3, 2)
    assert now() == (2, 1)
    assert promotion.tags_of(NAME, 3)[promotion.ROLLED_BACK] == "true"
    assert promotion.rollback(NAME) == (2, 1)
    assert now() == (1, None)
    with pytest.raises(RegistryError, match="no previous champion"):
        promotion.rollback(NAME)
    assert now() == (1, None)


# Forks before any database is opened: importing MLflow takes a second, and the move is killed many times.
CHILD = """
import os, shutil, signal, sys
from mlflow import MlflowClient
from lapcvae.registry import promotion
calls, stop_after = 0, -1
def counted(method):
    def call(self, *arguments, **names):
        global calls
        if calls == stop_after:
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1
        return method(self, *arguments, **names)
    return call
for name in ("set_registered_model_tag", "set_registered_model_alias", "delete_registered_model_alias",
             "set_model_version_tag", "delete_registered_model_tag"):
    setattr(MlflowClient, name, counted(getattr(MlflowClient, name)))
for stop_after in range(20):
    shutil.copy("before.db", f"after{stop_after}.db")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///after{stop_after}.db"
    if not (child := os.fork()):
        promotion.promote("lapcvae", 3, "better") if sys.argv[1] == "promote" else promotion.rollback("lapcvae")
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status), flush=True)
    if not status:
        break
"""


@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_a_move_killed_anywhere_is_undone_or_finished_and_there_is_always_one_champion(
    make: Callable, project: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2, 3):
        make(seed)
    promotion.promote(NAME, 1, "first"), promotion.promote(NAME, 2, "better")
    start, end = (2, 1), ((3, 2) if command == "promote" else (1, None))
    shutil.copy(project / "mlflow.db", project / "before.db")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, command],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    codes = [int(code) for code in done.stdout.split()]
    assert codes == [-signal.SIGKILL] * (len(codes) - 1) + [0]
    assert len(codes) >= 5
    seen = set()
    for stop_after in range(len(codes)):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/after{stop_after}.db")
        aliases = open_client().get_registered_model(NAME).aliases
        assert int(aliases["champion"]) in (start[0], end[0])  # before anybody mends anything
        seen.add(now())
        assert now() in (start, end)
    assert seen == {start, end}


def damage(version: int) -> None:
    source = Path(open_client().get_model_version(NAME, str(version)).source, "level1", "weights.safetensors")
    content = bytearray(source.read_bytes())
    content[-4] ^= 0xFF
    source.write_bytes(content)


def test_a_damaged_champion_is_mended_from_the_same_model_in_the_work_tree(make: Callable) -> None:
    make(1)
    folders = make(2)
    promotion.promote(NAME, 1, "first"), promotion.promote(NAME, 2, "better")
    assert promotion.recover(NAME, folders) == ""
    damage(2)
    with pytest.raises(DamagedVersionError):
        promotion.whole(NAME, 2)
    assert "put back from models/" in promotion.recover(NAME, folders)
    promotion.whole(NAME, 2)
    assert now() == (2, 1)


def test_a_damaged_champion_that_nothing_can_mend_gives_way_to_the_one_before(make: Callable) -> None:
    first = make(1)
    make(2)
    promotion.promote(NAME, 1, "first"), promotion.promote(NAME, 2, "better")
    damage(2)
    assert "version 1, the one before 2, is champion again" in promotion.recover(NAME, first)
    assert now() == (1, None)


def test_the_only_champion_damaged_beyond_mending_is_an_error_and_stays(make: Callable) -> None:
    make(1)
    promotion.promote(NAME, 1, "first")
    damage(1)
    with pytest.raises(DamagedVersionError, match="version 1"):
        promotion.recover(NAME, [])
    assert now() == (1, None)


def test_a_deleted_champion_gives_way_to_the_one_before(make: Callable) -> None:
    make(1), make(2)
    promotion.promote(NAME, 1, "first"), promotion.promote(NAME, 2, "better")
    open_client().delete_model_version(NAME, "2")
    assert "version 1" in promotion.recover(NAME, [])
    assert now() == (1, None)


def test_a_damaged_version_is_not_promoted(make: Callable) -> None:
    make(1), make(2)
    promotion.promote(NAME, 1, "first")
    damage(2)
    with pytest.raises(DamagedVersionError):
        promotion.promote(NAME, 2, "better")
    assert now() == (1, None)


def test_a_registry_that_is_away_is_not_a_damaged_champion(
    make: Callable, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(1), make(2)
    promotion.promote(NAME, 1, "first"), promotion.promote(NAME, 2, "better")
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(RegistryError) as raised:
            promotion.recover(NAME, [])
        assert not isinstance(raised.value, DamagedVersionError)
    assert now() == (2, 1)
