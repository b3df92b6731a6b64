"""source: looks at the source that params.yaml names -> data/source.json, which is another when the source is.

DVC runs it every time. It could look by itself, but would open whatever lies in a folder: it waits for a FIFO or a
device for ever, reads what links lead to, and fails at names that are no UTF-8.
"""

from __future__ import annotations

from pathlib import Path

from lapcvae.config import load
from lapcvae.data.source_state import state_of_source
from lapcvae.data.sources import SourceConfig
from lapcvae.io.atomic import write_json
from pipelines.stage import run_stage

_CACHE, _OUT = Path(".cache/photographs"), Path("data/source.json")


def work() -> str:
    """Run the stage; returns its status line."""
    config = load(SourceConfig, "source")
    state = state_of_source(config, _CACHE)
    write_json(_OUT, {"kind": config.kind, "state": state})
    return f"{config.kind}, state {state[:12]}"


if __name__ == "__main__":
    run_stage("source", work)
