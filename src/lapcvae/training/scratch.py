"""The folder where one training keeps its checkpoints until it is done, outside of what DVC looks after.

.cache/training/NAME/KEY/: the key names settings, data and code, so that changed ones start anew and restored ones go
on. DVC removes a stage's outs before it runs; this folder stays.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import lapcvae
from lapcvae.errors import TrainingError
from lapcvae.io.atomic import sha256_file, told

SCRATCH = Path(".cache/training")
# What `precision: auto` has measured on this machine; it stays when a training is done.
MEASURED = Path(".cache/precision.json")
# Unfinished trainings of one name that are kept, the newest: a parameter changed and changed back goes on.
_KEPT = 3
_CODE = ("data/batches.py", "models", "pyramid", "training")


def digests(files: list[Path]) -> dict[str, str]:
    """SHA-256 of each file by its path, files read side by side."""
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(map(str, files), pool.map(sha256_file, files), strict=True))


def key_of(settings: dict[str, Any], inputs: dict[str, str]) -> str:
    """What names a training: its resolved settings, its inputs' digests, this package's code and PyTorch's version."""
    top = Path(lapcvae.__file__).parent
    code = hashlib.sha256()
    for part in _CODE:
        for file in sorted([top / part] if part.endswith(".py") else (top / part).rglob("*.py")):
            code.update(file.read_bytes())
    named = {"settings": settings, "inputs": inputs, "code": code.hexdigest(), "torch": torch.__version__}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


@contextmanager
def scratch_folder(name: str, key: str, top: Path = SCRATCH) -> Iterator[Path]:
    """The training's folder, held by this process alone; gone after a body that ends well, kept after any other.

    Raises `TrainingError` where another process holds it, `StorageError` where it cannot be made.
    """
    folder = top / name / key[:16]
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(
                f"{name}: another process is training it with the same settings in this project ({folder} is locked); "
                "wait for it, or stop it and run again: training goes on from its last checkpoint"
            ) from None
        others = sorted((p for p in folder.parent.iterdir() if p != folder), key=lambda p: p.stat().st_mtime)
        for old in others[: -(_KEPT - 1)]:
            shutil.rmtree(old, ignore_errors=True)
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
