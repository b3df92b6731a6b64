"""What DVC keeps on this machine, looked after before a run: damaged cache files and locks nobody holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml

from lapcvae.io.atomic import read_json, write_json

_CACHE, _RWLOCK = Path(".dvc/cache/files/md5"), Path(".dvc/tmp/rwlock")
_SEEN = Path(".cache/retrain/verified.json")
_CHUNK = 1 << 20


def remove_damaged(say: Callable[[str], None] = print) -> list[str]:
    """Take cache files that dvc.lock or a .dvc file needs, and whose content is not what their name says, out of the
    cache; returns their digests.

    DVC trusts read-only cache files unread and would put the damage into the work tree. Without the file it makes the
    result anew, or pulls it. A file is read once, and again only when it has changed.
    """
    seen: dict[str, list[int]] = read_json(_SEEN) if _SEEN.exists() else {}
    kept: dict[str, list[int]] = {}
    damaged: list[str] = []
    for digest in sorted(_needed()):
        path = _place(digest)
        if not path.is_file():
            continue
        status = path.stat()
        signature = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        if seen.get(digest) != signature and _md5(path) != digest.removesuffix(".dir"):
            path.unlink()
            damaged.append(digest)
            say(f"cache: {path} was damaged and is removed; what it held is made anew")
        else:
            kept[digest] = signature
    write_json(_SEEN, kept)
    return damaged


def release_stale_locks(say: Callable[[str], None] = print) -> int:
    """Strike out entries of DVC's read-write lock whose process is gone, or is another program by now; how many.

    DVC does so for ids that no process has; an id that was given to another program would block for ever.
    """
    if not _RWLOCK.is_file():
        return 0
    try:
        tree: dict[str, Any] = json.loads(_RWLOCK.read_text(encoding="utf-8") or "{}")
    except ValueError:  # cut short by a full disk or a power cut; DVC would refuse to do anything
        _RWLOCK.unlink()
        say(f"locks: {_RWLOCK} was damaged and is removed")
        return 1
    read = {path: [i for i in infos if _is_dvc(i["pid"])] for path, infos in tree.get("read", {}).items()}
    write = {path: info for path, info in tree.get("write", {}).items() if not info or _is_dvc(info["pid"])}
    before = sum(map(len, tree.get("read", {}).values())) + len(tree.get("write", {}))
    stale = before - sum(map(len, read.values())) - len(write)
    if stale:
        write_json(_RWLOCK, {"read": {path: infos for path, infos in read.items() if infos}, "write": write})
        say(f"locks: {stale} left by processes that are gone, struck out of {_RWLOCK}")
    return stale


def _is_dvc(pid: int) -> bool:
    try:
        return any("dvc" in word for word in psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def _needed() -> set[str]:
    found: set[str] = set()
    for file in (Path("dvc.lock"), *Path("data/taken").glob("*.dvc")):
        if file.is_file():
            found |= set(_digests(yaml.safe_load(file.read_text(encoding="utf-8"))))
    for digest in [digest for digest in found if digest.endswith(".dir")]:
        try:
            found |= {entry["md5"] for entry in json.loads(_place(digest).read_text(encoding="utf-8"))}
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not here, or damaged: found out when its own content is read
    return found


def _digests(node: Any) -> Iterator[str]:
    """md5s of outs, wherever they stand in a lock; deps name the outs of others, or files outside the cache."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "outs":
                yield from (out["md5"] for out in value if isinstance(out, dict) and "md5" in out)
            elif key != "deps":
                yield from _digests(value)


def _place(digest: str) -> Path:
    return _CACHE / digest[:2] / digest[2:]


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
