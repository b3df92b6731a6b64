"""Where photographs come from: each kind of source is opened, verified, and read as one stream of members."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from lapcvae.config import load
from lapcvae.data.celeba import celeba_members, locate, unverified
from lapcvae.data.known_digests import KnownDigests, state_of
from lapcvae.data.names import parent
from lapcvae.data.photographs import MOST_ROWS, ends_shard
from lapcvae.errors import SourceError
from lapcvae.io.archive import ArchiveLimits, DamagedMember, Kind, Member, members
from lapcvae.io.fetch import RemoteFile, check, fetch

_PIECE_BYTES = 1 << 20
MIRRORS = Path(__file__).with_name("mirrors.yaml")


@dataclass(frozen=True)
class SourceConfig:
    """The `source` section of params.yaml."""

    kind: Literal["sample", "lfw", "celeba", "folder", "archive", "url"]
    path: str  # of the folder or archive, or of the folder with CelebA's files; the other kinds have theirs elsewhere
    url: str  # of the archive, for kind url
    sha256: str  # of the archive, checked before it is opened; empty: not checked, for kind archive only
    verify: bool  # whether CelebA's files must be the published ones
    identity: Literal["folder", "none"]
    max_file_bytes: int
    max_members: int
    max_total_bytes: int
    max_ratio: float

    def __post_init__(self) -> None:
        if self.kind in ("folder", "archive", "celeba") and not self.path:
            raise ValueError(f"kind `{self.kind}` needs `path`")
        if self.kind == "url" and not (self.url and self.sha256):
            raise ValueError("kind `url` needs `url` and `sha256`; nothing from a network is opened unverified")
        if min(self.max_file_bytes, self.max_members, self.max_total_bytes, self.max_ratio) <= 0:
            raise ValueError("the limits must be above 0")

    @property
    def limits(self) -> ArchiveLimits:
        """The part that concerns archives as a whole."""
        return ArchiveLimits(self.max_members, self.max_total_bytes, self.max_ratio)


class Item(NamedTuple):
    """One member of a source, with what the source says of it."""

    member: Member
    identity: str
    split: str = ""
    points: str = ""


class Part(NamedTuple):
    """What is known, or not, as a whole: an archive, the files of CelebA, or some files of a folder."""

    digest: Callable[[], str]  # of all that the items follow from; "" where only reading them can tell
    items: Iterator[Item]


def open_source(config: SourceConfig, digests: KnownDigests) -> Iterator[Part]:
    """Everything in the source, one part after the other. What is known of a file's digest is in `digests`.

    Raises `SourceError`, at any time, if it is missing, wrong or unsafe; never follows a link.
    """
    path = Path(config.path).expanduser()
    if config.kind == "folder":
        yield from _folder_parts(config, path)
    elif config.kind == "celeba":
        files = locate(path, MIRRORS, digests.md5) if config.verify else unverified(path)
        yield _celeba(files, config.limits, digests)
    elif config.kind == "archive":
        if config.sha256 and _digest(path, digests) != config.sha256.lower():
            check(path, config.sha256)
        yield Part(lambda: _digest(path, digests), _items(config, members(path, config.limits)))
    else:
        file = _remote(config)
        yield Part(lambda: file.sha256, _fetched(config, file))


def _remote(config: SourceConfig) -> RemoteFile:
    if config.kind == "url":
        name = PurePosixPath(urlsplit(config.url).path).name or "archive"
        return RemoteFile(name, config.sha256, (config.url,))
    (file,) = load(tuple[RemoteFile, ...], config.kind, MIRRORS)
    return file


def _folder_parts(config: SourceConfig, folder: Path) -> Iterator[Part]:
    """A part ends where a shard does, so that all of a shard is known, or none."""
    some: list[Member] = []
    for member in folder_members(folder, config.max_members):
        some.append(member)
        if ends_shard(member.name, member.size) or len(some) == MOST_ROWS:
            yield _folder_part(config, some)
            some = []
    if some:
        yield _folder_part(config, some)


def _folder_part(config: SourceConfig, some: list[Member]) -> Part:
    def digest() -> str:
        states = [(member.state, member.name) for member in some]
        return hashlib.sha256(repr(states).encode()).hexdigest() if all(state for state, _ in states) else ""

    return Part(digest, _items(config, some))


def _items(config: SourceConfig, found: Iterable[Member]) -> Iterator[Item]:
    for member in found:
        yield Item(member, parent(member.name) if config.identity == "folder" else "")


def _fetched(config: SourceConfig, file: RemoteFile) -> Iterator[Item]:
    """The file is looked for once its items are wanted: what is known need not be there."""
    yield from _items(config, members(fetch(file), config.limits))


def _celeba(files: dict[str, Path], limits: ArchiveLimits, digests: KnownDigests) -> Part:
    def digest() -> str:
        return " ".join(f"{name} {_digest(path, digests)}" for name, path in sorted(files.items()))

    found = celeba_members(files, limits)
    return Part(digest, (Item(member, of.identity, of.split, of.points) for member, of in found))


def _digest(path: Path, digests: KnownDigests) -> str:
    """The SHA-256 of a file; "" where it cannot be read, which is told when its members are."""
    try:
        return digests.sha256(path) if path.is_file() else ""
    except OSError:
        return ""


def folder_members(folder: Path, max_members: int) -> Iterator[Member]:
    """Every entry below `folder`, sorted by name within each folder, links and special files named but not opened."""
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; check source.path")
    pending, count, now_ns = [""], 0, time.time_ns()
    while pending:
        inside = pending.pop()
        try:
            entries = sorted(os.scandir(folder / inside), key=attrgetter("name"))
        except OSError:
            yield Member(inside, "damaged", 0, lambda limit: b"")
            continue
        below = []
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            count += 1
            if count > max_members:
                raise SourceError(
                    f"{folder}: more than {max_members:,} entries; raise source.max_members if it is right"
                )
            if entry.is_dir(follow_symlinks=False):
                below.append(name)
            else:
                yield _folder_member(entry, name, now_ns)
        pending.extend(reversed(below))


def _folder_member(entry: os.DirEntry[str], name: str, now_ns: int) -> Member:
    try:
        path, status = entry.path, entry.stat(follow_symlinks=False)
    except OSError:  # gone since the folder was read
        return Member(name, "damaged", 0, lambda limit: b"")
    kind: Kind = "file" if stat.S_ISREG(status.st_mode) else "other"

    def read(limit: int) -> bytes:
        # O_NOFOLLOW and O_NONBLOCK: what was a file a moment ago may be a link or a FIFO now.
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                return _read(handle, limit, status.st_size)
            finally:
                os.close(handle)
        except OSError as error:
            raise DamagedMember(str(error)) from None

    return Member(name, kind, status.st_size, read, state_of(status, now_ns))


def _read(handle: int, limit: int, size: int) -> bytes:
    """All of a file of about `size` bytes, at most `limit`; a stream would make room for as many each time."""
    data = os.read(handle, min(limit, size + 1))
    if len(data) == min(limit, size):  # as a rule; else it has grown, or comes in pieces, or is shorter by now
        return data
    parts, limit = [data], limit - len(data)
    while limit and (part := os.read(handle, min(limit, _PIECE_BYTES))):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)
