import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lapcvae.errors import PipelineError
from pipelines import dvc_runner

ROOT = Path(__file__).parents[2]


def test_stages_come_in_the_order_dvc_runs_them(new_project: Callable[[str], Path]) -> None:
    project = new_project("order")
    planned = dvc_runner.stages()
    said: list[str] = []
    dvc_runner.run_everything(said.append)
    assert (project / "tries").read_text().split() == planned
    assert sorted(planned) == ["aside", "first", "last", "middle@a", "middle@b"]
    assert planned.index("first") < planned.index("middle@b") < planned.index("last")
    assert "Running stage 'last':" in said


def test_one_stage_leaves_the_others_alone(new_project: Callable[[str], Path]) -> None:
    project = new_project("one")
    dvc_runner.run_stage("first")
    dvc_runner.run_stage("first")
    assert (project / "tries").read_text().split() == ["first"]  # the second time nothing had changed


@pytest.mark.parametrize("code", [1, 2])
def test_failure_carries_the_stages_exit_code_and_words(new_project: Callable[[str], Path], code: int) -> None:
    project = new_project("failing")
    (project / "trouble" / "first").write_text(str(code))
    with pytest.raises(PipelineError) as raised:
        dvc_runner.run_stage("first")
    assert raised.value.exit_code == code
    assert "stage 'first' failed" in str(raised.value)
    assert "first: error: the disk of first is full" in str(raised.value)


def test_failure_of_dvc_itself_carries_its_own_exit_code(new_project: Callable[[str], Path]) -> None:
    new_project("unknown")
    with pytest.raises(PipelineError, match=r"Stage 'frist' not found inside 'dvc.yaml'") as raised:
        dvc_runner.run_stage("frist")
    assert raised.value.exit_code == 255


def test_unreadable_graph_is_the_users_mistake(new_project: Callable[[str], Path]) -> None:
    project = new_project("unreadable")
    (project / "dvc.yaml").write_text("stages: {a: {cmd: 'true', dpes: [b]}}\n")
    with pytest.raises(PipelineError, match="dpes") as raised:
        dvc_runner.stages()
    assert raised.value.exit_code == 2


def test_interrupt_ends_the_stage_too(new_project: Callable[[str], Path]) -> None:
    project = new_project("interrupted")
    slow = "import time\nopen('started', 'w').close()\ntime.sleep(600)\n"
    (project / "stage.py").write_text(slow)
    # A shell starts background jobs with SIGINT ignored, and that is inherited: the runner must hear it all the same.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"sys.path.insert(0, {str(ROOT)!r}); from pipelines import dvc_runner as r; r.run_everything()"
    )
    runner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    family: list[psutil.Process] = []
    try:
        while not (project / "started").exists():
            assert runner.poll() is None, runner.communicate()
            time.sleep(0.05)
        family = psutil.Process(runner.pid).children(recursive=True)
        assert len(family) >= 2  # DVC, and the stage under it
        runner.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in runner.communicate(timeout=120)[1]
        assert psutil.wait_procs(family, timeout=60)[1] == []
    finally:
        for process in [*family, runner]:
            if process.poll() is None if process is runner else process.is_running():
                process.kill()
