"""download: the source that params.yaml names, and the batches taken in from the inbox -> data/raw (packed, with an
index).
"""

from __future__ import annotations

from pathlib import Path

from lapcvae.config import load
from lapcvae.data.collect import collect
from lapcvae.data.sources import SourceConfig
from lapcvae.data.taken import FOLDER
from pipelines.stage import run_stage


def work() -> str:
    """Run the stage; returns its status line."""
    stored, refused = collect(
        load(SourceConfig, "source"), Path("data/raw"), taken=FOLDER, cache=Path(".cache/photographs")
    )
    return f"{stored} photographs, {refused} refused"


if __name__ == "__main__":
    run_stage("download", work)
