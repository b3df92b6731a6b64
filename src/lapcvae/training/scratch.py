"""The folder where one training keeps its checkpoints until it is done, outside of what DVC looks after.

.cache/training/NAME/KEY/ of the project: the key names settings, data and code, so that changed ones start anew and
restored ones go on. DVC removes a stage's outs before it runs, and the whole copy of the project that a queued
experiment ran in; this folder stays.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

import lapcvae
from lapcvae.errors import TrainingError
from lapcvae.io.atomic import sha256_file, told
from lapcvae.io.lock import lock_if_free
from lapcvae.io.project import project_top

SCRATCH = Path(".cache/training")
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


def measured() -> Path:
    """The file that keeps what `precision: auto` has measured on this machine; it stays when a training is done."""
    return project_top() / ".cache/precision.json"


@contextmanager
def scratch_folder(name: str, key: str) -> Iterator[Path]:
    """The training's folder, held by this process alone; gone after a body that ends well, kept after any other.

    In one of DVC's temporary copies of the project it is the project's, so that it outlives the copy; but where another
    experiment trains the same just then, the copy's own.
    Raises `TrainingError` where another process holds it, `StorageError` where it cannot be made.
    """
    tops = dict.fromkeys((project_top() / SCRATCH, Path.cwd().resolve() / SCRATCH))
    with ExitStack() as held:
        for top in tops:
            folder = top / name / key[:16]
            with told(folder):
                folder.mkdir(parents=True, exist_ok=True)
            if held.enter_context(lock_if_free(folder / "lock")):
                break
        else:
            raise TrainingError(
                f"{name}: another process is training it with the same settings in this project ({folder} is locked); "
                "wait for it, or stop it and run again: training goes on from its last checkpoint"
            )
        _prune(folder)
        yield folder
        shutil.rmtree(folder, ignore_errors=True)


def _prune(folder: Path) -> None:
    """Remove the oldest of the folders beside this one, but for those that are being trained in."""
    others = sorted((p for p in folder.parent.iterdir() if p != folder and p.is_dir()), key=lambda p: p.stat().st_mtime)
    for old in others[: -(_KEPT - 1)]:
        with lock_if_free(old / "lock") as free:
            if free:
                shutil.rmtree(old, ignore_errors=True)
