"""Several processes under one stage: torchrun's, with the exit codes and the few words of a stage."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.launch import PROCESSES, wanted

ROOT = Path(__file__).parents[2]
START = "import sys; from pipelines.launch import launch; sys.exit(launch('tests.pipeline.launched', sys.argv[1:], 2))"


def _start(folder: Path, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", START, str(folder), how],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
        stderr=subprocess.PIPE,
        text=True,
    )


def _running(folder: Path) -> list[bool]:
    """Of the two processes, whether each is there; both have signed in."""
    return [psutil.pid_exists(int((folder / rank).read_text())) for rank in ("0", "1")]


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("fine", 0, ""),
        ("mistaken", 2, "test: error: `batch` is wrong\n"),
        (
            "killed",
            128 + signal.SIGKILL,
            "launched {folder} killed: error: process 1 of 2 was ended by SIGKILL; the same command goes on from the "
            "last checkpoint\n",
        ),
    ],
)
def test_the_exit_code_is_that_of_who_failed_first_and_so_are_the_words(
    tmp_path: Path, how: str, code: int, said: str
) -> None:
    process = _start(tmp_path, how)
    _, err = process.communicate()
    assert (process.returncode, err) == (code, said.format(folder=tmp_path))
    assert _running(tmp_path) == [False, False]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_of_them(tmp_path: Path, number: signal.Signals) -> None:
    process = _start(tmp_path, "waiting")
    while not ((tmp_path / "0").exists() and (tmp_path / "1").exists()):
        assert process.poll() is None
        time.sleep(0.01)
    assert _running(tmp_path) == [True, True]
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 128 + number
    assert "torch/distributed" not in err
    assert _running(tmp_path) == [False, False]


def test_a_process_that_is_one_of_several_asks_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv(PROCESSES, "2")
    assert wanted() == 2
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert wanted() == 1


@pytest.mark.parametrize("said", ["0", "two", "-1", "1.5"])
def test_what_is_no_number_of_processes_is_named(said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.stages.train", "2"],
        cwd=ROOT,
        env={**os.environ, PROCESSES: said},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"train: error: LAPCVAE_PROCESSES is '{said}'; give how many processes are to train together: 1 or more\n"
    )
