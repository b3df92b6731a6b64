"""Checkpoints of a training on disk: written aside and renamed, each with its digest, the last few kept.

A checkpoint is two files of one stem: `.safetensors` with the tensors and `.json` with the plain state and the
digests of both. The JSON is written last, so a checkpoint without one, or one whose digests do not agree, is not
whole, and the next older one is used. Nothing that is read can run code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lapcvae.io.atomic import atomic_path, write_text


@dataclass(frozen=True)
class Checkpoint:
    """The tensors (on the processor) and the plain state of a training after `update` updates.

    rollbacks: returns to an earlier checkpoint so far. regular: taken at the interval, not where training was stopped;
    only these are returned to, so that where a run was stopped never changes what it ends with.
    """

    update: int
    rollbacks: int
    regular: bool
    tensors: dict[str, Tensor]
    state: dict[str, Any]

    @property
    def stem(self) -> str:
        """The file name, without suffix, that sorts checkpoints by age."""
        return f"{self.rollbacks:02d}-{self.update:09d}{'' if self.regular else '-stopped'}"


class Checkpoints:
    """The checkpoints of one training in a folder, written in the background, one at a time."""

    def __init__(self, folder: Path, identity: str, keep: int = 3) -> None:
        """identity: names what is trained from what; a checkpoint of another identity is never used."""
        self.folder, self._identity, self._keep = folder, identity, keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        for left in folder.glob(".*.partial"):
            left.unlink(missing_ok=True)

    def save(self, checkpoint: Checkpoint) -> None:
        """Start writing; waits for the one before. Raises `StorageError` where that one could not be written."""
        self.wait()
        self._writing = self._thread.submit(self._write, checkpoint)

    def wait(self) -> None:
        """Wait until the last one is on the disk. Raises `StorageError` where it could not be written."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def newest(self, regular: bool = False) -> Checkpoint | None:
        """The newest whole one (the newest regular one if asked for), or None; damaged ones are named on stderr."""
        for path in sorted(self.folder.glob("*.json"), reverse=True):
            if regular and path.stem.endswith("-stopped"):
                continue
            try:
                return self._read(path)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                print(f"warning: checkpoint {path} cannot be used ({error}); looking for an older one", file=sys.stderr)
        return None

    def clear(self) -> None:
        """Remove every checkpoint."""
        self.wait()
        for path in [*self.folder.glob("*.json"), *self.folder.glob("*.safetensors")]:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """End the background thread; what is being written is finished, and its errors are dropped."""
        self._thread.shutdown(wait=True)

    def _write(self, checkpoint: Checkpoint) -> None:
        data = save(checkpoint.tensors)
        state = json.dumps(checkpoint.state)  # in the order it has: a curve keeps its columns
        stem = self.folder / checkpoint.stem
        with atomic_path(stem.with_suffix(".safetensors")) as temporary:
            temporary.write_bytes(data)
        head = {
            "identity": self._identity,
            "update": checkpoint.update,
            "rollbacks": checkpoint.rollbacks,
            "regular": checkpoint.regular,
            "tensors_sha256": hashlib.sha256(data).hexdigest(),
            "state_sha256": hashlib.sha256(state.encode()).hexdigest(),
            "state": state,
        }
        write_text(stem.with_suffix(".json"), json.dumps(head, indent=1))
        self._prune()

    def _prune(self) -> None:
        """Keep the last few regular ones; one made where training was stopped goes once there is a newer one."""
        stems = sorted(path.stem for path in self.folder.glob("*.json"))
        regular = [stem for stem in stems if not stem.endswith("-stopped")]
        kept = {*regular[-self._keep :], *stems[-1:]}
        for path in [*self.folder.glob("*.json"), *self.folder.glob("*.safetensors")]:
            if path.stem not in kept:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _read(self, path: Path) -> Checkpoint:
        head = json.loads(path.read_text(encoding="utf-8"))
        if head["identity"] != self._identity:
            raise ValueError("it is of other settings, data or code")
        data = path.with_suffix(".safetensors").read_bytes()
        for name, found in (("state", head["state"].encode()), ("tensors", data)):
            if hashlib.sha256(found).hexdigest() != head[f"{name}_sha256"]:
                raise ValueError(f"its {name} are not what was written")
        return Checkpoint(head["update"], head["rollbacks"], head["regular"], load(data), json.loads(head["state"]))
