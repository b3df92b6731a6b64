"""A process that writes an MLflow run for another: importing MLflow takes the interpreter seconds, and training's is
busy.

It reads one operation a line on its standard input, and answers each with the run's `Ids`. When the input ends before
the run has, who wrote there was killed, and the run is marked.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue

from lapcvae.registry.operations import Operation
from lapcvae.registry.record import Ids, Record
from lapcvae.registry.store import import_mlflow

_GRACE_S = 10.0  # for a store that does not answer, once nobody waits for it


class ScribeGoneError(Exception):
    """The process has ended, or could not be begun."""


class Scribe:
    """Such a process, as the one that has it sees it."""

    def __init__(self) -> None:
        """Raises `ScribeGoneError`."""
        command = [sys.executable, "-m", "lapcvae.registry.scribe"]
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as error:
            raise ScribeGoneError(f"no process could be begun that writes to MLflow ({error})") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def do(self, operation: Operation, files: Sequence[Path] = ()) -> Ids:
        """See `Record.do`. Raises `ScribeGoneError`."""
        request = json.dumps([operation, [str(path.absolute()) for path in files]])
        try:
            self._requests.write(f"{request}\n".encode())
            self._requests.flush()
            answer = self._answers.readline()
        except OSError:
            answer = b""
        if not answer.endswith(b"\n"):
            raise ScribeGoneError("the process that writes to MLflow has ended")
        return Ids(*json.loads(answer))

    def close(self) -> None:
        """Let the process end, and wait for that."""
        with contextlib.suppress(OSError):  # what is left to be written, to one who has ended
            self._requests.close()
        self._answers.close()
        self._process.wait()


_begun: list[Scribe] = []


def head_start() -> None:
    """Begin one before it is needed.

    For programs, before they import what takes them long: on another core MLflow's import takes no time of theirs.
    Where several processes train together, the first has the run.
    """
    if not _begun and os.environ.get("RANK", "0") == "0":
        with contextlib.suppress(ScribeGoneError):  # told by the run
            _begun.append(Scribe())


def take() -> Scribe:
    """The one that was begun, or else a new one. Raises `ScribeGoneError`."""
    return _begun.pop() if _begun else Scribe()


def main() -> None:
    """Serve until the input ends."""
    for stop in (signal.SIGINT, signal.SIGTERM):  # sent to a whole group, and still there is an end to be written
        signal.signal(stop, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed is no answer
    requests: SimpleQueue[str] = SimpleQueue()
    ready = threading.Event()
    threading.Thread(target=_read, args=(requests, ready), daemon=True).start()
    with contextlib.suppress(Exception):  # told when there is something to write
        import_mlflow()
    ready.set()
    record = Record()
    while (line := requests.get()).endswith("\n"):
        operation, files = json.loads(line)
        answers.write(json.dumps(record.do(operation, [Path(file) for file in files])) + "\n")
        answers.flush()
    with contextlib.suppress(Exception):  # the next start of a stage does it
        record.abandon()
    os._exit(0)  # there is nothing to tidy up, and MLflow would take a while for it


def _read(requests: SimpleQueue[str], ready: threading.Event) -> None:
    for line in sys.stdin:
        requests.put(line)
    if ready.is_set():
        requests.put("")
        time.sleep(_GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    main()
