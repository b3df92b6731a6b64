"""Several processes under one stage: torchrun's, with the exit codes and the few words of a stage."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.launch import PROCESSES, wanted

ROOT = Path(__file__).parents[2]
START = "import sys; from pipelines.launch import launch; sys.exit(launch('tests.pipeline.launched', sys.argv[1:], 2))"


def _start(how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", START, how],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("fine", 0, ""),
        ("mistaken", 2, "test: error: `batch` is wrong\n"),
        (
            "killed",
            128 + signal.SIGKILL,
            "launched killed: error: process 1 of 2 was ended by SIGKILL; the same command goes on from the last "
            "checkpoint\n",
        ),
    ],
)
def test_the_exit_code_is_that_of_who_failed_first_and_so_are_the_words(how: str, code: int, said: str) -> None:
    process = _start(how)
    out, err = process.communicate()
    assert (process.returncode, err) == (code, said)
    assert sorted(out.split("\n")) == ["", "0 has begun", "1 has begun"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_of_them(number: signal.Signals) -> None:
    process = _start("waiting")
    assert process.stdout is not None
    for _ in range(2):
        process.stdout.readline()
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 128 + number
    assert "torch/distributed" not in err
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


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
