"""The process that writes a run for another: real ones, and real programs that have not imported MLflow."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.entities import Run

from lapcvae.registry.scribe import Scribe, ScribeGoneError
from lapcvae.registry.store import open_client

BEGIN = """\
import os, signal, sys, time
import psutil
from lapcvae.registry import scribe, tracking
from pathlib import Path

def the_scribe():
    return next(p for p in psutil.Process().children() if "lapcvae.registry.scribe" in p.cmdline())

"""


def _run(body: str, **more: Any) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", BEGIN + body]
    return subprocess.run(command, env=environment, text=True, capture_output=True, check=False, **more)


def _levels() -> list[Run]:
    client = open_client()
    faces = client.get_experiment_by_name("faces")
    assert faces is not None
    return list(client.search_runs([faces.experiment_id], "tags.kind = 'level'", order_by=["start_time ASC"]))


def _curve(run: Run) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in open_client().get_metric_history(run.info.run_id, "rate_nats")]


def test_a_program_writes_its_run_without_importing_mlflow(project: Path) -> None:
    done = _run("""
scribe.head_start()
with tracking.child_run("level 3", "level", {"a": 1}) as run:
    (child,) = psutil.Process().children()
    for step in range(50):
        run.log(step, {"rate_nats": step})
    Path("note.txt").write_text("kept")
    run.artifact("note.txt", "notes")
    Path("note.txt").unlink()
    run.tag("note", "line\\nbreak \\u00e4")
    print(run.run_id, run.record_id)
assert not child.is_running()
assert "mlflow" not in sys.modules
""")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (run,) = _levels()
    assert done.stdout.split() == [run.info.run_id] * 2
    assert run.info.status == "FINISHED"
    assert _curve(run) == [(step, float(step)) for step in range(50)]
    assert [file.path for file in open_client().list_artifacts(run.info.run_id, "notes")] == ["notes/note.txt"]
    assert run.data.tags["note"] == "line\nbreak \u00e4"


@pytest.mark.parametrize("when", ["at_start", "amid"])
def test_a_killed_scribe_costs_nothing_but_a_warning(project: Path, when: str) -> None:
    done = _run(f"""
with tracking.child_run("level 3", "level", {{"a": 1}}) as run:
    if {when == "amid"}:
        run.log(0, {{"rate_nats": 0}})
        run.wait()
    the_scribe().kill()
    for step in (1, 2):
        run.log(step, {{"rate_nats": step}})
""")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: the process that writes to MLflow has ended") == 1
    (run,) = _levels()
    assert (run.info.status, run.data.params) == ("FINISHED", {"a": "1"})
    assert _curve(run) == [(0, 0.0), (1, 1.0), (2, 2.0)][when == "at_start" :]


def test_a_killed_program_leaves_a_failed_run_and_no_process(project: Path) -> None:
    done = _run("""
with tracking.child_run("level 3", "level", {}) as run:
    run.log(0, {"rate_nats": 1})
    run.wait()
    print(the_scribe().pid, flush=True)
    run.log(1, {"rate_nats": 2})
    run.wait()
    os.kill(os.getpid(), signal.SIGKILL)
""")
    assert done.returncode == -signal.SIGKILL
    _gone(int(done.stdout))
    (run,) = _levels()
    assert (run.info.status, run.data.tags["crashed"]) == ("FAILED", "true")
    assert _curve(run) == [(0, 1.0), (1, 2.0)]
    parent = open_client().get_run(run.data.tags["mlflow.parentRunId"])
    assert (parent.info.status, parent.data.tags["crashed"]) == ("FAILED", "true")


def test_one_that_was_never_asked_ends_with_its_program(project: Path) -> None:
    done = _run("scribe.head_start(); print(the_scribe().pid)")
    assert (done.returncode, done.stderr) == (0, "")
    _gone(int(done.stdout))
    assert open_client().get_experiment_by_name("faces") is None


def test_what_stops_a_whole_group_leaves_it_to_write_the_end(project: Path) -> None:
    done = _run(
        """
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is begun with it ignored
with tracking.child_run("level 3", "level", {}) as run:
    run.wait()
    os.killpg(0, signal.SIGINT)
    time.sleep(60)
""",
        start_new_session=True,
    )
    assert "KeyboardInterrupt" in done.stderr
    (run,) = _levels()
    assert run.info.status == "KILLED"


def test_it_says_that_it_is_gone(project: Path) -> None:
    scribe = Scribe()
    scribe._process.kill()
    with pytest.raises(ScribeGoneError, match="has ended"):
        scribe.do({"op": "tag", "key": "a", "value": "b"})
    scribe.close()


def _gone(pid: int) -> None:
    until = time.monotonic() + 60
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.05)
