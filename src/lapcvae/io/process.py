"""Processes by id and start time: an id alone may be another process's tomorrow."""

from __future__ import annotations

import psutil

_CLOCK_SLACK_S = 5.0  # a start time is derived from the boot time, which moves a little when the clock is set


def own_name() -> str:
    """This process, such as "4711@1700000000.25"."""
    process = psutil.Process()
    return f"{process.pid}@{process.create_time():.2f}"


def find(name: str) -> psutil.Process | None:
    """The process that called itself so, None where it is gone."""
    pid, _, started = name.partition("@")
    try:
        process = psutil.Process(int(pid))
        return process if abs(process.create_time() - float(started)) < _CLOCK_SLACK_S else None
    except (psutil.Error, ValueError):
        return None


def runs(process: psutil.Process) -> bool:
    """Whether a process still does something; a zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def is_alive(name: str) -> bool:
    """Whether the process that called itself so still runs on this machine."""
    process = find(name)
    return process is not None and runs(process)
