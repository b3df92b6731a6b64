"""Processes killed outright, deadlines, and locks: nothing is orphaned, nothing stays stuck. DVC is real, and small."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lapcvae.data.executor import Executor
from lapcvae.errors import PipelineError
from pipelines import deadline, dvc_runner, dvc_state, journal

ROOT = Path(__file__).parents[2]
GRAPH = """\
stages:
  first: {cmd: python stage.py first, deps: [stage.py], outs: [first]}
  second: {cmd: python stage.py second, deps: [stage.py, first], outs: [second]}
"""
# A stage as ours are. It waits where a file says so, and starts a process of its own as the data stages do.
STAGE = """\
import os, subprocess, sys, time
from pathlib import Path
from pipelines.stage import run_stage

def work():
    if Path("slow").exists():
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path("started.part").write_text(f"{os.getpid()} {helper.pid}")
        Path("started.part").rename("started")
        try:
            time.sleep(600)
        finally:
            helper.kill()
    Path(sys.argv[1]).write_text(sys.argv[1])
    return "done"

run_stage(sys.argv[1], work)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DVC_ROOT", "LAPCVAE_RUNNER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "src")]))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    (tmp_path / "stage.py").write_text(STAGE)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], check=True)
    return tmp_path


@pytest.fixture
def running(project: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[psutil.Process]]]:
    """A runner in the middle of a stage, and every process below it."""
    (project / "slow").touch()
    program = "from pipelines import dvc_runner as r; r.run_everything()"
    runner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    family: list[psutil.Process] = []
    try:
        while not (project / "started").exists():
            assert runner.poll() is None
            time.sleep(0.05)
        family = psutil.Process(runner.pid).children(recursive=True)
        assert len(family) >= 3  # DVC, the stage, and what the stage started
        yield runner, family
    finally:
        for process in [*family, runner]:
            if process.poll() is None if isinstance(process, subprocess.Popen) else process.is_running():
                process.kill()
        runner.wait()


def _goes_on(project: Path) -> None:
    """The next run finishes the work."""
    (project / "slow").unlink()
    dvc_state.release_stale_locks()
    dvc_runner.run_everything()
    assert (project / "second").read_text() == "second"


def test_a_killed_runner_leaves_no_process_and_no_lock(
    project: Path, running: tuple[subprocess.Popen[bytes], list[psutil.Process]]
) -> None:
    runner, family = running
    runner.kill()
    assert psutil.wait_procs(family, timeout=60)[1] == []
    _goes_on(project)


def test_a_killed_dvc_does_not_leave_its_stage_behind(
    project: Path, running: tuple[subprocess.Popen[bytes], list[psutil.Process]]
) -> None:
    _, family = running
    next(process for process in family if "dvc" in process.cmdline()).kill()
    assert psutil.wait_procs(family, timeout=60)[1] == []
    _goes_on(project)


def test_a_deadline_ends_the_whole_process_group(project: Path) -> None:
    (project / "slow").touch()
    for seconds in (8, 60, 300):  # until it passes while the stage is at work, and not before
        with pytest.raises(PipelineError, match="the deadline passed") as raised:
            dvc_runner.run_stage("first", deadline=time.monotonic() + seconds)
        assert raised.value.exit_code == dvc_runner.DEADLINE_EXIT
        if (project / "started").exists():
            break
    pids = [int(pid) for pid in (project / "started").read_text().split()]
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)
    _goes_on(project)


def test_a_deadline_stops_what_the_flow_does_itself_and_the_processes_that_work_for_it() -> None:
    with (
        pytest.raises(PipelineError, match="examining the batch: the deadline passed") as raised,
        deadline.kept(time.monotonic() + 2, "examining the batch"),
        Executor(2) as pool,
    ):
        list(pool.run(time.sleep, [600, 600], 1, crashed=lambda _: None))
    assert raised.value.exit_code == dvc_runner.DEADLINE_EXIT
    assert multiprocessing.active_children() == []
    with deadline.kept(time.monotonic() + 600, "what ends in time"):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_held_lock_is_waited_for(project: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", "import zc.lockfile, sys, time; l = zc.lockfile.LockFile('.dvc/tmp/lock');"
         "print('held', flush=True); time.sleep(8)"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    dvc_runner.run_stage("first")
    assert holder.wait() == 0  # DVC alone gives up after three seconds
    holder.stdout.close()
    assert (project / "first").exists()


def test_stale_entries_of_dvcs_lock_are_struck_out(project: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as other:
        entry = {"pid": other.pid, "cmd": "dvc repro"}  # alive, and no DVC: an id that was given away again
        lock = project / ".dvc/tmp/rwlock"
        lock.parent.mkdir(exist_ok=True)
        lock.write_text(
            json.dumps({"write": {str(project / "first"): entry}, "read": {str(project / "stage.py"): [entry]}})
        )
        with pytest.raises(PipelineError, match="busy"):
            dvc_runner.run_stage("first")
        assert dvc_state.release_stale_locks() == 2
        dvc_runner.run_stage("first")


@pytest.mark.parametrize("left", ["", '{"write": {', '{"write": {"/photographs": {}}}', "[]"])
def test_a_lock_that_dvc_was_killed_writing_is_removed(project: Path, left: str) -> None:
    lock = project / ".dvc/tmp/rwlock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text(left)
    with pytest.raises(PipelineError, match=r"(?i)rwlock"):
        dvc_runner.run_stage("first")
    assert dvc_state.release_stale_locks() == 1
    dvc_runner.run_stage("first")
    assert dvc_state.release_stale_locks() == 0


def test_a_dvc_lock_that_was_cut_short_anywhere_stops_nothing(project: Path) -> None:
    dvc_runner.run_everything()
    assert dvc_state.set_aside_damaged_notes() == []
    lock = project / "dvc.lock"
    whole = lock.read_bytes()
    aside = 0
    for kept in range(0, len(whole), 90):
        lock.write_bytes(whole[:kept])
        if found := dvc_state.set_aside_damaged_notes():
            aside += 1
            assert found == [Path("dvc.lock")]
            assert (project / "dvc.lock.damaged").read_bytes() == whole[:kept]
        dvc_runner.run_everything()
        assert dvc_runner.is_up_to_date()
        assert (project / "second").read_text() == "second"
    assert aside


def test_without_its_lock_dvc_finds_results_in_the_run_cache(project: Path) -> None:
    dvc_runner.run_everything()
    Path("dvc.lock").write_bytes(b"")
    assert dvc_state.set_aside_damaged_notes() == [Path("dvc.lock")]
    said: list[str] = []
    dvc_runner.run_everything(said.append)
    assert not any("Running stage" in line for line in said)


@pytest.mark.parametrize("kept", [0, 30, 60])
def test_a_note_of_a_batch_that_was_cut_short_is_set_aside_and_can_be_made_anew(project: Path, kept: int) -> None:
    tar = Path("data/taken/0001-0123456789abcdef.tar")
    tar.parent.mkdir(parents=True)
    tar.write_bytes(b"photographs")
    dvc_runner.add(tar)
    note = tar.with_name(f"{tar.name}.dvc")
    whole = note.read_text()
    assert dvc_state.set_aside_damaged_notes() == []
    note.write_text(whole[:kept])
    assert dvc_state.set_aside_damaged_notes() == [note]
    dvc_runner.add(tar)
    assert note.read_text() == whole


def _damage(content: str) -> Path:
    (entry,) = [p for p in Path(".dvc/cache/files/md5").rglob("*") if p.is_file() and p.read_text() == content]
    entry.chmod(0o644)
    entry.write_text(content.upper())
    entry.chmod(0o444)
    return entry


def test_a_damaged_cache_file_is_found_before_it_is_used(project: Path) -> None:
    dvc_runner.run_everything()
    assert dvc_state.remove_damaged() == []
    entry = _damage("first")
    (project / "first").unlink()
    assert dvc_state.remove_damaged() == [entry.parent.name + entry.name]
    said: list[str] = []
    dvc_runner.run_everything(said.append)
    assert "Running stage 'first':" in said
    assert (project / "first").read_text() == "first"


def test_a_damaged_cache_file_that_the_work_tree_has_whole_costs_no_work(project: Path) -> None:
    dvc_runner.run_everything()
    entry = _damage("first")
    assert dvc_state.remove_damaged() == [entry.parent.name + entry.name]
    assert entry.read_text() == "first"
    assert entry.stat().st_mode & 0o222 == 0, "DVC takes a cache file that can be written for one it must read"
    assert dvc_runner.is_up_to_date()
    assert dvc_state.remove_damaged() == []


def test_a_damaged_file_of_a_folder_is_put_back_from_the_work_tree(project: Path) -> None:
    folder = project / "data/warm_start/champion"
    (folder / "level1").mkdir(parents=True)
    (folder / "level1" / "weights").write_text("weights")
    dvc_runner.add(folder.relative_to(project))
    entry = _damage("weights")
    assert dvc_state.remove_damaged() == [entry.parent.name + entry.name]
    assert entry.read_text() == "weights"


def test_two_runs_at_once_are_one(project: Path) -> None:
    with journal.one_at_a_time("a") as first:
        assert first is not None
        program = "from pipelines import journal as r\nwith r.one_at_a_time('b') as held: print(held)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "None"
    with journal.one_at_a_time("c") as again:
        assert again is not None
        assert again.died is None


def test_a_killed_run_frees_its_place_and_is_known_to_have_died(project: Path) -> None:
    program = "import os, signal\nfrom pipelines import journal as r\n"
    program += "with r.one_at_a_time('b'):\n r.enter('gate'); os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    with journal.one_at_a_time("c") as held:
        assert held is not None
        assert held.died is not None
        assert (held.died["name"], held.died["phase"]) == ("b", "gate")
