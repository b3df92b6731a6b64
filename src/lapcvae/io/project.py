"""The project that is worked in, also from inside one of DVC's temporary copies of it."""

from __future__ import annotations

import os
from pathlib import Path


def project_top() -> Path:
    """The real project's top folder.

    `dvc exp run --temp` and queued experiments run stages in a copy under `.dvc/tmp/exps`, thrown away afterwards;
    DVC then sets `DVC_ROOT` to the project that asked. Without it (a stage run by hand) it is the current folder,
    or, where that lies inside some `.dvc`, the folder that holds that `.dvc`.
    """
    if root := os.environ.get("DVC_ROOT"):
        return Path(root).resolve()
    here = Path.cwd().resolve()
    for folder in reversed(here.parents):
        if folder.name == ".dvc":
            return folder.parent
    return here
