"""The stage `train@k`, as DVC runs it, with a note of when things happened in it: python -m bench.watched_stage K

Leaves noted.json: `first_update`, `last_update` (seconds of the clock), seconds that training spent `keeping` its
checkpoints (`kept` of them) and `waited` for MLflow, and that `logging` points of the curve took beside it (`logs`).
"""

from __future__ import annotations

import functools
import json
import runpy
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lapcvae.registry.scribe import Scribe, head_start

if __name__ == "__main__":
    head_start()  # as the stage does, before PyTorch is imported

from lapcvae.registry.run import Run
from lapcvae.training.loop import _Loop
from lapcvae.training.recovery import Recovery

noted: dict[str, float] = defaultdict(float)


def watch(owner: Any, name: str, seconds: str, times: str, of: Callable[..., bool] = lambda *_: True) -> None:
    """Add what calls of a method take, and how many there are; of those whose arguments are `of` interest."""
    plain: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(plain)
    def watched(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return plain(*args, **kwargs)
        finally:
            if of(*args):
                noted[seconds] += time.perf_counter() - start
                noted[times] += 1

    setattr(owner, name, watched)


def note_updates() -> None:
    """Note when updates begin and end."""
    plain = _Loop._update

    def update(self: _Loop) -> None:
        noted.setdefault("first_update", time.time())
        plain(self)
        noted["last_update"] = time.time()

    _Loop._update = update  # type: ignore[method-assign]


if __name__ == "__main__":
    note_updates()
    watch(Recovery, "keep", "keeping", "kept")
    watch(Run, "wait", "waited", "waits")
    watch(Scribe, "do", "logging", "logs", lambda scribe, operation, *_: operation["op"] == "metrics")
    try:
        runpy.run_module("pipelines.stages.train", run_name="__main__")
    finally:
        Path("noted.json").write_text(json.dumps(noted))
