"""One data stage, run as DVC runs it, with its seconds, processor seconds and memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import yaml

TOP = Path(__file__).parents[1]
_LOOK_S = 0.05  # between looks at a stage's memory
_SET_CHILD_SUBREAPER = 36  # of Linux's prctl


def stage(project: Path, name: str, look: bool = True) -> dict[str, float]:
    """Run one stage in `project`; returns what `cost` does."""
    return cost(project, ["-m", f"pipelines.stages.{name}"], look)


def cost(project: Path, arguments: list[str], look: bool = False) -> dict[str, float]:
    """Run Python in `project`: seconds, and processor seconds of all its processes.

    With `look`, their peaks of memory in MB too, of those at a time added up: they have at most that together.
    Looking takes milliseconds from them each time.
    """
    adopt()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start, peak = time.monotonic(), 0
    command = [sys.executable, *arguments]
    child = psutil.Popen(command, cwd=project, env={**os.environ, "PYTHONPATH": str(TOP)}, stdout=subprocess.DEVNULL)
    while look and child.poll() is None:
        peak = max(peak, peaks(child))
        with contextlib.suppress(psutil.TimeoutExpired):
            child.wait(_LOOK_S)
    child.wait()
    seconds = time.monotonic() - start
    if child.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with exit code {child.returncode}")
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, 0):
            continue
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu_s": cpu, **({"peak_mb": peak / 1e6} if look else {})}


def adopt() -> None:
    """Make processes that outlive the stage that began them this process's own: only then is their time known."""
    if ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise SystemExit("processor seconds of all processes can be told on Linux only")


def peaks(parent: psutil.Process) -> int:
    """Bytes of memory that a process and all below it have had at most, added up; of those that are there now."""
    return sum(map(peak_of, [parent, *parent.children(recursive=True)]))


def peak_of(process: psutil.Process) -> int:
    """Bytes of memory that a process has had at most, as Linux keeps count; 0 where it has ended meanwhile."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def anew(project: Path, name: str) -> dict[str, float]:
    """`stage`, with nothing known of an earlier run."""
    shutil.rmtree(project / ".cache", ignore_errors=True)
    return stage(project, name, look=False)


def project(folder: Path) -> Path:
    """A folder with the project's parameters and no limits on how alike photographs are."""
    folder.mkdir(parents=True, exist_ok=True)
    params = yaml.safe_load((TOP / "params.yaml").read_text())
    params["source"]["kind"] = "folder"
    params["validate"]["totals"] = {"accepted": {"low": 1, "high": 10**9}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder
