"""Flow runs of this project whose end Prefect's server may not know.

A run that is killed, or whose server is away as it ends, stays `Running` on Prefect's pages for ever. So each run
leaves a note as it begins, and writes there how it ended; a later run tells the server of those whose process is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prefect.states import Completed, Crashed, Failed, State

from lapcvae.io.atomic import read_json, write_json
from lapcvae.io.process import is_alive, own_name
from pipelines.flows import server

NOTES = Path(".cache/retrain/flow_runs")
_UNTOLD = "this server was away as it ended"


@dataclass
class Note:
    """What becomes of a run. `status`: what it came to, once it has."""

    status: str = ""


@contextmanager
def noted(flow_run_id: str) -> Iterator[Note]:
    """Note that this process is that flow run, and afterwards how it ended."""
    note, path = Note(), NOTES / f"{flow_run_id}.json"
    beginning = {"process": own_name(), "status": "", "error": ""}
    write_json(path, beginning)
    try:
        yield note
    except Exception as error:
        write_json(path, beginning | {"error": str(error) or type(error).__name__})
        raise
    write_json(path, beginning | {"status": note.status})


def settle(died: str, phase: str) -> int:
    """Tell the server how runs ended that it takes to be going on; how many. Those of living processes are left alone.

    died, phase: of a run that was killed, its id, and how far it had come; "" and "" for none.
    """
    told = 0
    for path in sorted(NOTES.glob("*.json")):
        note = read_json(path)
        if is_alive(note["process"]):
            continue
        changed = server.end(path.stem, _end(note, phase if path.stem == died else ""))
        if changed is None:  # the server is away: a later run tells it
            return told
        told += changed
        path.unlink(missing_ok=True)
    return told


def _end(note: dict[str, str], phase: str) -> State[None]:
    if note["status"]:
        return Completed(message=f"{note['status']}; {_UNTOLD}")
    if note["error"]:
        return Failed(message=f"{note['error']} ({_UNTOLD})")
    where = f" in phase `{phase}`" if phase else ""
    return Crashed(message=f"its process was killed{where}")
