"""The inbox: what lies in it becomes a batch, which is examined by itself and then taken in or set aside whole.

A batch moves through folders by renames, so a run that is stopped anywhere leaves nothing half done and the next one
goes on from what it finds:

    data/inbox/...               where people put photographs
    data/intake/NNNN/            a batch being looked at: photographs/, then examined/
    data/taken/NNNN-DIGEST.tar   taken in: part of the data set from now on (see `data.taken`)
    data/set_aside/NNNN/         set aside: its photographs untouched, and reason.json
    data/batches/NNNN.json       what became of it, every file accounted for
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lapcvae.data.manifest import Row, read_manifest
from lapcvae.data.prepare import prepare
from lapcvae.data.reasons import NOT_COUNTED
from lapcvae.data.sources import SourceConfig
from lapcvae.data.taken import FOLDER as TAKEN
from lapcvae.data.taken import batches, write_batch
from lapcvae.errors import SourceError
from lapcvae.io.atomic import atomic_path, read_json, sha256_file, told, write_json

INTAKE, SET_ASIDE, BATCHES = Path("data/intake"), Path("data/set_aside"), Path("data/batches")
_PHOTOGRAPHS, _COLLECTED, _EXAMINED = "photographs", "collected.json", "examined"


@dataclass(frozen=True)
class IntakeConfig:
    """The `retrain.intake` section of params.yaml: what a batch must be like to be taken in."""

    inbox: str
    quiet_s: float  # nothing in the inbox may have changed for so long, or it is left for the next run
    max_reject_share: float  # of the batch's photographs, 0 to 1
    min_distinct_share: float  # of its photographs, different from each other, 0 to 1

    def __post_init__(self) -> None:
        if self.quiet_s < 0 or not 0 <= self.max_reject_share <= 1 or not 0 <= self.min_distinct_share <= 1:
            raise ValueError("`quiet_s` must be at least 0, the shares 0 to 1")


@dataclass(frozen=True)
class Batch:
    """A batch being looked at. `counts`: its own account (see `data.account`). `new`: accepted photographs whose pixels
    are not in the data set yet. `reason`: why it cannot be taken in, or "".
    """

    number: str
    folder: Path
    counts: dict[str, Any] = field(default_factory=dict)
    new: int = 0
    reason: str = ""

    @property
    def examined(self) -> Path:
        """Holds aligned/images.npy and aligned/manifest.csv of the batch alone."""
        return self.folder / _EXAMINED

    @property
    def tar(self) -> Path | None:
        """The batch in the data set, None before it is taken in."""
        return next((path for path in batches(TAKEN) if path.name.startswith(f"{self.number}-")), None)


def collect_batch(config: IntakeConfig) -> Batch | None:
    """Move what lies in the inbox into a batch of its own, or go on with one that an earlier run left; None: nothing.

    Raises `StorageError`; `SourceError` where the inbox is no folder.
    """
    inbox = Path(config.inbox)
    with told(INTAKE):
        inbox.mkdir(parents=True, exist_ok=True)
        if not inbox.is_dir():
            raise SourceError(f"{inbox}: not a folder; check `retrain.intake.inbox` in params.yaml")
        INTAKE.mkdir(parents=True, exist_ok=True)
        _sweep(BATCHES)
        left = [path for path in sorted(INTAKE.iterdir()) if path.name.isdigit() and not _settle(path)]
        folder = left[0] if left else None
        if folder is not None and (folder / _COLLECTED).exists():
            return Batch(folder.name, folder)
        waiting = sorted(inbox.iterdir()) if _is_quiet(inbox, config.quiet_s) else []
        if folder is None:
            if not waiting:
                return None
            folder = INTAKE / _next_number()
        target = folder / _PHOTOGRAPHS
        target.mkdir(parents=True, exist_ok=True)
        for entry in waiting:
            if not (target / entry.name).exists():  # else it came later, under a name that is taken: the next batch
                entry.rename(target / entry.name)
        write_json(folder / _COLLECTED, {"entries": sorted(path.name for path in target.iterdir())})
    return Batch(folder.name, folder)


def examine(batch: Batch, config: IntakeConfig, source: SourceConfig, params: Path, known: Path) -> Batch:
    """Look at the batch alone, as the data stages would. `known`: the data set's manifest, which need not exist.

    Every file is accounted for in `examined/`; a batch that cannot be taken in gets its `reason`.
    """
    if batch.examined.exists() and not (batch.examined / "account.json").exists():  # stopped in the middle
        shutil.rmtree(batch.examined)
    try:
        counts = prepare(batch.folder / _PHOTOGRAPHS, batch.examined, params, source.identity)
    except SourceError as error:
        return Batch(batch.number, batch.folder, {}, 0, str(error))
    rows = list(read_manifest(batch.examined / "aligned" / "manifest.csv"))
    own = f"{batch.number}/"  # a batch met again after an interruption may be in the data set already
    old = (row for row in read_manifest(known) if not row.name.startswith(own)) if known.is_file() else ()
    there = {row.pixels_sha256 for row in old}
    accepted = [row for row in rows if row.status == "accepted"]
    new = sum(row.pixels_sha256 not in there for row in accepted)
    return Batch(batch.number, batch.folder, counts, new, _reason(rows, new, config))


def take_in(batch: Batch, max_file_bytes: int) -> Path:
    """Make the batch part of the data set; returns its tar in `data/taken`. Safe to repeat."""
    if found := batch.tar:
        return found
    photographs = batch.folder / _PHOTOGRAPHS
    files = _readable(photographs, max_file_bytes)
    with atomic_path(batch.folder / "batch.tar") as temporary:
        write_batch(batch.number, photographs, files, temporary)
    packed = batch.folder / "batch.tar"
    target = TAKEN / f"{batch.number}-{sha256_file(packed)[:16]}.tar"
    with told(target):
        TAKEN.mkdir(parents=True, exist_ok=True)
        packed.rename(target)
    return target


def finish(batch: Batch, max_file_bytes: int, notes: dict[str, Any]) -> None:
    """The batch is taken in for good: write its record, and remove the photographs that its tar holds.

    Anything that the tar could not hold (links, unreadable or huge files) goes to `data/set_aside`.
    """
    photographs = batch.folder / _PHOTOGRAPHS
    held = set(_readable(photographs, max_file_bytes))
    for path in [path for path in photographs.rglob("*") if path.is_symlink() or not path.is_dir()]:
        if (name := path.relative_to(photographs)).as_posix() not in held:
            kept = SET_ASIDE / f"{batch.number}-left-out" / name
            kept.parent.mkdir(parents=True, exist_ok=True)
            path.rename(kept)
    _record(batch, "taken", "", notes)
    _settle(batch.folder)


def set_aside(batch: Batch, reason: str, notes: dict[str, Any]) -> Path:
    """Put the batch away whole, with its reason; returns where it lies. Its tar, if it had one, leaves the data set."""
    if tar := batch.tar:
        tar.unlink()
    write_json(batch.folder / "reason.json", {"reason": reason, "account": batch.counts})
    _record(batch, "set aside", reason, notes)
    _settle(batch.folder)
    return SET_ASIDE / batch.number


def taken_count() -> int:
    """New photographs taken in so far, over all batches."""
    records = [read_json(path) for path in sorted(BATCHES.glob("*.json"))] if BATCHES.is_dir() else []
    return sum(record["new"] for record in records if record["status"] == "taken")


def _settle(folder: Path) -> bool:
    """Put away the folder of a batch whose record says what became of it; False where there is no record yet."""
    record = BATCHES / f"{folder.name}.json"
    if not record.exists():
        return False
    if read_json(record)["status"] == "taken":
        shutil.rmtree(folder)  # its tar holds it
        return True
    _sweep(folder)
    target = SET_ASIDE / folder.name
    with told(target):
        SET_ASIDE.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
    return True


def _sweep(folder: Path) -> None:
    """Remove what a write that was killed left beside its target; one run at a time, so nobody is writing it now."""
    for path in folder.glob(".*.partial"):
        path.unlink()


def _record(batch: Batch, status: str, reason: str, notes: dict[str, Any]) -> None:
    files: dict[str, str] = {}
    manifest = batch.examined / "aligned" / "manifest.csv"
    if manifest.is_file():
        files = {row.name: row.reason or row.status for row in read_manifest(manifest)}
    write_json(
        BATCHES / f"{batch.number}.json",
        {"status": status, "reason": reason, "new": batch.new, "account": batch.counts, "files": files, **notes},
    )


def _reason(rows: list[Row], new: int, config: IntakeConfig) -> str:
    counted = [row for row in rows if row.reason not in NOT_COUNTED]
    rejected = Counter(row.reason for row in counted if row.status == "rejected" and row.reason != "duplicate")
    share = rejected.total() / max(len(counted), 1)
    if not counted:
        return "no photograph in it"
    if share > config.max_reject_share:
        worst = ", ".join(f"{reason} {count}" for reason, count in rejected.most_common(3))
        return (
            f"{rejected.total()} of {len(counted)} photographs cannot be used ({worst}); at most "
            f"{config.max_reject_share:.0%} may be"
        )
    seen = [row.pixels_sha256 for row in counted if row.pixels_sha256]
    if len(set(seen)) < config.min_distinct_share * len(seen):
        return (
            f"{len(seen)} photographs are only {len(set(seen))} different ones; at least "
            f"{config.min_distinct_share:.0%} must be"
        )
    if not new:
        return "every photograph in it is in the data set already"
    return ""


def _readable(photographs: Path, max_file_bytes: int) -> list[str]:
    """Regular files below the folder that a tar can hold, by name; links are not followed."""
    found = []
    for inside, _, names in os.walk(photographs):
        for name in names:
            path = Path(inside, name)
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_size <= max_file_bytes and os.access(path, os.R_OK):
                found.append(path.relative_to(photographs).as_posix())
    return sorted(found)


def _is_quiet(inbox: Path, quiet_s: float) -> bool:
    """Whether nothing below the inbox is still being copied: no entry changed in the last `quiet_s` seconds."""
    newest = max((path.lstat().st_ctime for path in inbox.rglob("*")), default=0.0)
    return time.time() - newest >= quiet_s


def _next_number() -> str:
    used = [0]
    for folder in (TAKEN, SET_ASIDE, BATCHES):
        if folder.is_dir():
            used += [int(path.name[:4]) for path in folder.iterdir() if path.name[:4].isdigit()]
    return f"{max(used) + 1:04d}"
