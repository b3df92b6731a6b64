"""What DVC keeps on this machine, looked after before a run: damaged cache files and locks nobody holds."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml

from lapcvae.io.atomic import atomic_path, read_json, write_json

_CACHE, _RWLOCK = Path(".dvc/cache/files/md5"), Path(".dvc/tmp/rwlock")
_SEEN = Path(".cache/retrain/verified.json")
_CHUNK = 1 << 20


def notes() -> list[Path]:
    """The .dvc files of what DVC keeps and no stage makes: batches taken in, weights that training begins with."""
    return sorted(Path("data").glob("*/*.dvc"))


def remove_damaged(say: Callable[[str], None] = print) -> list[str]:
    """Take cache files that dvc.lock or a .dvc file needs, and whose content is not what their name says, out of the
    cache; returns their digests.

    DVC trusts read-only cache files unread and would put the damage into the work tree. Where the work tree has the
    file whole, the cache gets it from there: DVC makes anew whatever its cache lacks, and that may be days of training.
    Else DVC makes the result anew, or pulls it. A file is read once, and again only when it has changed.
    """
    seen: dict[str, list[int]] = read_json(_SEEN) if _SEEN.exists() else {}
    kept: dict[str, list[int]] = {}
    damaged: list[str] = []
    for digest, places in sorted(_needed().items()):
        path = _place(digest)
        if not path.is_file():
            continue
        if seen.get(digest) != _signature(path) and _md5(path) != digest.removesuffix(".dir"):
            path.unlink()
            damaged.append(digest)
            whole = next((place for place in places if place.is_file() and _md5(place) == digest), None)
            if whole is None:
                say(f"cache: {path} was damaged and is removed; what it held is made anew")
                continue
            with atomic_path(path) as temporary:
                shutil.copyfile(whole, temporary)
            path.chmod(0o444)  # as DVC leaves them
            say(f"cache: {path} was damaged and is put back from {whole}")
        kept[digest] = _signature(path)
    write_json(_SEEN, kept)
    return damaged


def release_stale_locks(say: Callable[[str], None] = print) -> int:
    """Strike out entries of DVC's read-write lock whose process is gone, or is another program by now; how many.

    DVC does so for ids that no process has; an id that was given to another program would block for ever. A lock file
    that was cut short is removed: DVC, killed while it wrote it, would refuse to do anything from then on.
    """
    if not _RWLOCK.is_file():
        return 0
    from dvc.lock import Lock

    with Lock(str(_RWLOCK.with_name("rwlock.lock")), wait=True):  # else a file that is being written looks cut short
        try:
            tree = _read_lock(_RWLOCK)
        except (ValueError, TypeError, KeyError, AttributeError):
            _RWLOCK.unlink()
            say(f"locks: {_RWLOCK} was damaged and is removed")
            return 1
        read = {path: [info for info in infos if _is_dvc(info["pid"])] for path, infos in tree["read"].items()}
        write = {path: info for path, info in tree["write"].items() if _is_dvc(info["pid"])}
        stale = sum(map(len, tree["read"].values())) - sum(map(len, read.values())) + len(tree["write"]) - len(write)
        if stale:
            write_json(_RWLOCK, {"read": {path: infos for path, infos in read.items() if infos}, "write": write})
            say(f"locks: {stale} left by processes that are gone, struck out of {_RWLOCK}")
    return stale


def set_aside_damaged_notes(say: Callable[[str], None] = print) -> list[Path]:
    """Move a dvc.lock, or another of the `notes`, that DVC can no longer read to NAME.damaged; returns which.

    DVC writes them in place, so one that is killed, or has no space, may leave half of one. Nothing is lost: what
    dvc.lock said is found again in DVC's run-cache, and a .dvc file is made anew from the file beside it.
    """
    damaged: list[Path] = []
    for path in (Path("dvc.lock"), *notes()):
        if path.is_file() and not _is_whole(path):
            aside = path.with_name(f"{path.name}.damaged")
            path.replace(aside)
            damaged.append(path)
            say(f"{path} was damaged, by a DVC that was killed or had no space; it is {aside.name} now")
    return damaged


def _is_whole(note: Path) -> bool:
    """Whether each file that it speaks of has its path and its digest; DVC can read such a file, and makes anew what it
    does not speak of.
    """
    try:
        tree = yaml.safe_load(note.read_text(encoding="utf-8"))
        parts = [tree] if note.suffix == ".dvc" else list(tree["stages"].values())
        lists = [part[kind] for part in parts for kind in ("deps", "outs") if kind in part]
        return bool(lists) and all(lists) and all(file["path"] and file["md5"] for files in lists for file in files)
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, AttributeError):
        return False


def _read_lock(path: Path) -> dict[str, dict[str, Any]]:
    """DVC's read-write lock: `read` by path, a list of processes each, and `write` by path, a process each."""
    tree = json.loads(path.read_text(encoding="utf-8"))
    read, write = tree.get("read", {}), tree.get("write", {})
    for info in [*(info for infos in read.values() for info in infos), *write.values()]:
        int(info["pid"]), str(info["cmd"])
    return {"read": read, "write": write}


def _is_dvc(pid: int) -> bool:
    try:
        return any("dvc" in word for word in psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def _needed() -> dict[str, list[Path]]:
    """Digests that the lock and the notes speak of, and where in the work tree each should be."""
    found: dict[str, list[Path]] = {}
    for file in (Path("dvc.lock"), *notes()):
        if file.is_file():
            for out in _outs(yaml.safe_load(file.read_text(encoding="utf-8"))):
                found.setdefault(out["md5"], []).append(file.parent / out["path"])
    for digest, places in [item for item in found.items() if item[0].endswith(".dir")]:
        try:
            entries = [(entry["md5"], entry["relpath"]) for entry in json.loads(_place(digest).read_text("utf-8"))]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not here, or damaged: found out when its own content is read
        for md5, inside in entries:
            found.setdefault(md5, []).extend(place / inside for place in places)
    return found


def _outs(node: Any) -> Iterator[dict[str, str]]:
    """Outs with an md5, wherever they stand in a lock; deps name the outs of others, or files outside the cache."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "outs":
                yield from (out for out in value if isinstance(out, dict) and "md5" in out)
            elif key != "deps":
                yield from _outs(value)


def _signature(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _place(digest: str) -> Path:
    return _CACHE / digest[:2] / digest[2:]


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
