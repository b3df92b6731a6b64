"""What every stage does around its own work: errors to exit codes, one status line, outputs left whole."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable

from lapcvae.errors import LapcvaeError
from pipelines import lifeline


def run_stage(name: str, work: Callable[[], str]) -> None:
    """Run `work`, which returns what its status line says, and end the process as DESIGN's exit codes say.

    Exit code 2 for what the user can mend (parameters, data, disk), 1 for what is ours.
    """
    lifeline.watch()
    gc.freeze()  # what has been imported stays: going through it for cycles took as long as much of what is done here
    start = time.monotonic()
    try:
        summary = work()
    except LapcvaeError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"{name}: {summary} ({time.monotonic() - start:.1f} s)", flush=True)
