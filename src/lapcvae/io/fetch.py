"""Files by digest: from a folder of copies, a path or an address, believed only when size and SHA-256 agree."""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lapcvae.errors import SourceError
from lapcvae.io.atomic import sha256_file, told
from lapcvae.io.progress import progress

MIRRORS_VARIABLE = "LAPCVAE_MIRRORS"
_CHUNK = 1 << 18
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_AGENT = {"User-Agent": "lapcvae", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class RemoteFile:
    """A file known by content: hex digest `sha256`, `bytes` long (0: not known), to be had at any of `mirrors`."""

    name: str
    sha256: str
    mirrors: tuple[str, ...]
    bytes: int = 0
    page: str = ""  # where a person finds it


@dataclass(frozen=True)
class FetchConfig:
    """How patiently to download, and where to."""

    folder: Path = Path(".cache/downloads")
    attempts: int = 5  # a mirror
    pause_s: float = 1.0  # after the first failure; doubled after each
    timeout_s: float = 30.0  # without a byte


class _Gone(Exception):  # noqa: N818 - the outcome of one mirror
    """This mirror will not give the file, however often it is asked."""


class _Interrupted(Exception):  # noqa: N818 - the outcome of one attempt
    """It did not work this time and may the next."""


def check(path: Path, sha256: str, size: int = 0) -> None:
    """Raise `SourceError` unless `path` is a file of `size` bytes (0: any) with that digest."""
    if not path.is_file():
        raise SourceError(f"{path}: no such file; check the path, or fetch the file again")
    found = path.stat().st_size
    if size and found != size:
        kind = "truncated" if found < size else "another file"
        raise SourceError(f"{path}: {found:,} bytes where {size:,} are expected ({kind}); fetch it again")
    digest = sha256_file(path)
    if digest != sha256.lower():
        raise SourceError(f"{path}: SHA-256 is {digest}, not {sha256}; damaged or another file, fetch it again")


def fetch(file: RemoteFile, config: FetchConfig | None = None) -> Path:
    """A path where `file` lies, verified.

    Looks in the folder that LAPCVAE_MIRRORS names (by digest, whatever the copy is called), then among earlier
    downloads, then at each mirror in turn. Raises `SourceError` when none has it, saying what each answered and how to
    bring the file by hand.
    """
    config = config or FetchConfig()
    if (copy := copy_of(file.name, lambda path: _is(path, file))) is not None:
        return copy
    target = config.folder / file.name
    if _is(target, file):
        return target
    problems = []
    for mirror in file.mirrors:
        try:
            return _from(mirror, file, target, config)
        except (_Gone, SourceError) as problem:
            problems.append(f"  {mirror}: {problem}")
    size = f", {file.bytes:,} bytes" if file.bytes else ""
    page = f" (from {file.page})" if file.page else ""
    raise SourceError(
        f"{file.name}: no mirror gave it.\n" + "\n".join(problems) + f"\nBy hand: bring the file{page} to "
        f"{target}, or into a folder named in the variable {MIRRORS_VARIABLE}. It must have SHA-256 {file.sha256}{size}"
    )


def _is(path: Path, file: RemoteFile) -> bool:
    try:
        check(path, file.sha256, file.bytes)
    except SourceError:
        return False
    return True


def copy_of(name: str, is_it: Callable[[Path], bool]) -> Path | None:
    """A file below the folder that LAPCVAE_MIRRORS names for which `is_it` holds, whatever it is called, or None."""
    folder = os.environ.get(MIRRORS_VARIABLE, "")
    if not folder:
        return None
    copies = sorted(p for p in Path(folder).expanduser().rglob("*") if p.is_file())
    copies.sort(key=lambda path: path.name != name)  # the likeliest first: a digest of gigabytes takes a while
    return next((path for path in copies if is_it(path)), None)


def _from(mirror: str, file: RemoteFile, target: Path, config: FetchConfig) -> Path:
    if not mirror.startswith(("http://", "https://")):
        path = Path(mirror.removeprefix("file://")).expanduser()
        check(path, file.sha256, file.bytes)
        return path
    partial = target.with_name(f"{target.name}.{file.sha256[:12]}.partial")
    with told(target):
        partial.parent.mkdir(parents=True, exist_ok=True)
    pause = config.pause_s
    for attempt in range(1, config.attempts + 1):
        try:
            _download(mirror, file, partial, config.timeout_s)
            break
        except _Interrupted as problem:
            if attempt == config.attempts:
                raise _Gone(f"{problem}, {attempt} times") from None
            time.sleep(pause)
            pause *= 2
    try:
        check(partial, file.sha256, file.bytes)
    except SourceError:
        partial.unlink()  # nothing of it can be trusted for resuming
        raise
    partial.replace(target)
    return target


def _download(address: str, file: RemoteFile, partial: Path, timeout_s: float) -> None:
    """Append what is missing to `partial`; raises `_Interrupted` or `_Gone`."""
    have = partial.stat().st_size if partial.exists() else 0
    if file.bytes and have >= file.bytes:
        return
    request = urllib.request.Request(address, headers=_AGENT)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            _receive(answer, file, partial, have)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # what is here is all there is, or more than there is: the digest will tell
            if not file.bytes:
                return
            partial.unlink()
            raise _Interrupted("the part downloaded earlier did not fit") from None
        problem = f"HTTP status {error.code}"
        raise (_Interrupted if error.code in _RETRIED else _Gone)(problem) from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _Interrupted(str(getattr(error, "reason", None) or error or type(error).__name__)) from None


def _receive(answer: http.client.HTTPResponse, file: RemoteFile, partial: Path, have: int) -> None:
    if answer.status != 206:
        have = 0  # this server knows no ranges: from the beginning
    first = answer.read(_CHUNK)
    kind = answer.headers.get_content_type()
    if have == 0 and (kind == "text/html" or first.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html"))):
        raise _Gone("gave an HTML page in place of the file")
    length = answer.headers.get("Content-Length")
    total = have + int(length) if length else file.bytes
    if file.bytes and total != file.bytes:
        raise _Gone(f"has a file of {total:,} bytes, not {file.bytes:,}")
    with (
        told(partial),
        partial.open("ab" if have else "wb") as stream,
        progress(total=total or None, label=file.name, unit="B", scale=True) as bar,
    ):
        bar.update(have)
        while first:
            have += len(first)
            if total and have > total:
                raise _Gone(f"sends more than {total:,} bytes")
            stream.write(first)
            bar.update(len(first))
            first = answer.read(_CHUNK)
    if total and have < total:
        raise _Interrupted(f"ended after {have:,} of {total:,} bytes")
