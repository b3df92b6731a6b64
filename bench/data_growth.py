"""What 100 photographs cost that are added to many: in every data stage, beside what the 100 alone cost."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from bench.data_stage import TOP, cost, project, stage
from bench.photographs import variants
from lapcvae.data.taken import FOLDER, write_batch
from lapcvae.io.atomic import sha256_file

_TURNS = 5
_PIECE_BYTES = 1 << 20
_FOLDERS = {"download": "raw", "landmarks": "landmarks", "align": "aligned", "pyramid": "pyramid"}  # below `data`
_SOURCES = {"folder": "photographs", "archive": "photographs.tar"}
Cost = dict[str, float]


def added(count: int, folder: Path, kind: str, dvc: bool) -> dict[str, Any]:
    """Each stage for 100 photographs alone, for many, and for the same many and 100 more: medians of turns.

    kind: where the photographs lie: `folder`, which the 100 are put into, or `archive`, a tar, after which they are
    taken in as a batch. dvc: not each stage, but `dvc repro pyramid` in clones of the last commit. Many are done once;
    in every turn it is another 100, and afterwards the many are alone again. Memory is looked at in one turn more, of
    which the times do not count: in it, what is kept compiled is compiled. Beside them the least that the many and 100
    more take: looking through the folder, and copying outputs that are one array.
    """
    many, found, run = folder / "many", dict[str, Any](), repro if dvc else all_stages
    shutil.rmtree(many, ignore_errors=True)
    begin(many, kind, dvc, 0, count)
    found["many"] = run(many)
    turns: dict[str, list[dict[str, Cost]]] = {"alone": [], "added": [], "least": []}
    for first in range(count, count + 100 * (1 + _TURNS), 100):
        look = first == count
        shutil.rmtree(folder / "alone", ignore_errors=True)
        begin(folder / "alone", kind, dvc, first, first + 100)
        turns["alone"].append(run(folder / "alone", look))
        new = add(many, kind, first, first + 100)
        turns["added"].append(run(many, look))
        turns["least"].append({} if dvc else least(many, kind))
        for path in new:
            path.unlink()
        run(many)  # what is kept is of the many alone again
    for name, of_turns in turns.items():
        found[name] = {
            of: looked | {key: statistics.median(turn[of][key] for turn in of_turns[1:]) for key in of_turns[1][of]}
            for of, looked in of_turns[0].items()
        }
    return found


def begin(work: Path, kind: str, dvc: bool, first: int, last: int) -> None:
    """Make a project whose source, of that kind, has some photographs."""
    if dvc:
        subprocess.run(["git", "clone", "--quiet", TOP, work], check=True)
    project(work)
    params = yaml.safe_load((work / "params.yaml").read_text())
    params["source"] |= {"kind": kind, "path": _SOURCES[kind]}
    (work / "params.yaml").write_text(yaml.safe_dump(params))
    if kind == "folder":
        put(work / _SOURCES[kind], first, last)
    else:
        pack("photographs", work / _SOURCES[kind], first, last)


def add(work: Path, kind: str, first: int, last: int) -> list[Path]:
    """Add some photographs to a project that has some; returns the new files."""
    return put(work / _SOURCES[kind], first, last) if kind == "folder" else [take_in(work, first, last)]


def put(folder: Path, first: int, last: int) -> list[Path]:
    """Write photographs into a folder; returns where."""
    paths = []
    for file, _, data in variants(last, first=first):
        paths.append(folder / file)
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        paths[-1].write_bytes(data)
    return paths


def pack(name: str, out: Path, first: int, last: int) -> None:
    """Write photographs as a tar; `name` is that of the folder in it."""
    with tempfile.TemporaryDirectory() as scratch:
        files = [path.relative_to(scratch).as_posix() for path in put(Path(scratch), first, last)]
        write_batch(name, Path(scratch), files, out)


def take_in(work: Path, first: int, last: int) -> Path:
    """Write photographs as the first batch that a project took in; returns where."""
    taken = work / FOLDER
    taken.mkdir(parents=True, exist_ok=True)
    pack("0001", taken / "new", first, last)
    return (taken / "new").rename(taken / f"0001-{sha256_file(taken / 'new')[:16]}.tar")


def least(work: Path, kind: str) -> dict[str, Cost]:
    """What no stage of a grown project can do without: seconds, and processor seconds."""
    looks = ("source", "download") if kind == "folder" else ()
    looking = {name: timed(lambda: look_through(work / _SOURCES[kind])) for name in looks}
    arrays = {
        "align": timed(lambda: copy(work / "data/aligned")),
        "pyramid": timed(lambda: copy(work / "data/pyramid")),
    }
    return looking | arrays


def timed(work: Callable[[], None]) -> Cost:
    """Seconds, and processor seconds, of some work in this process."""
    start, used = time.monotonic(), time.process_time()
    work()
    return {"seconds": time.monotonic() - start, "cpu_s": time.process_time() - used}


def look_through(folder: Path) -> None:
    """Ask every file of a folder for its times."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            look_through(Path(entry.path))
        else:
            entry.stat(follow_symlinks=False)


def copy(source: Path) -> None:
    """Read all files of a folder and write them to one that is flushed."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    with tempfile.TemporaryFile(dir=source, buffering=_PIECE_BYTES) as stream:
        for path in files:
            with path.open("rb", buffering=0) as file:
                shutil.copyfileobj(file, stream, _PIECE_BYTES)
        stream.flush()
        os.fsync(stream.fileno())


def repro(work: Path, look: bool = True) -> dict[str, Cost]:
    """`cost` of what a person does."""
    return {"dvc repro pyramid": cost(work, ["-m", "dvc", "repro", "--quiet", "pyramid"], look)}


def all_stages(work: Path, look: bool = True) -> dict[str, Cost]:
    """`stage` of each up to `pyramid`; what an earlier run left is taken away before, as DVC does."""
    used = {}
    for name in ("source", "download", "landmarks", "align", "validate", "pyramid"):
        if output := _FOLDERS.get(name):
            shutil.rmtree(work / "data" / output, ignore_errors=True)
        used[name] = stage(work, name, look)
    return used
