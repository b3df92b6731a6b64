"""Which retraining holds the project, and how far it is: there is one at a time, and a killed one is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lapcvae.io.atomic import read_json, write_json
from lapcvae.io.lock import lock_if_free
from lapcvae.io.process import is_alive, own_name

SCRATCH = Path(".cache/retrain")
JOURNAL = SCRATCH / "run.json"


@dataclass(frozen=True)
class Held:
    """The one run at a time. `died`: what an earlier run, killed before its end, left in its journal."""

    died: dict[str, Any] | None


@contextmanager
def one_at_a_time(name: str) -> Iterator[Held | None]:
    """Hold the project for this run; None where another holds it. A killed run's hold ends with its process.

    name: of this run, for the journal, such as its Prefect flow run id.
    """
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with lock_if_free(SCRATCH / "lock") as free:
        if not free:
            yield None
            return
        died = None
        if JOURNAL.exists():
            old: dict[str, Any] = read_json(JOURNAL)
            died = old if old["phase"] != "done" and not is_alive(old["process"]) else None
        enter("start", name)
        try:
            yield Held(died)
        finally:
            enter("done", name)


def enter(phase: str, name: str | None = None) -> None:
    """Note in the journal how far this run is."""
    name = name if name is not None else read_json(JOURNAL)["name"]
    write_json(JOURNAL, {"phase": phase, "name": name, "process": own_name()})


def phase() -> str:
    """How far this run is."""
    return str(read_json(JOURNAL)["phase"])
