"""Archives read member by member, as data: nothing is ever extracted to a path that an archive names.

Zip and tar (plain, gz, bz2, xz, zst) are told apart by their first bytes. Only regular files give bytes; every other
member is named with its kind. Limits on count, size and ratio stop a bomb while it is being read, not after.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, NamedTuple, cast

import zstandard

from lapcvae.errors import SourceError

Kind = Literal["file", "folder", "other", "encrypted", "damaged"]

_HEADER_BYTES = 16 << 20  # no honest header (long names, pax records) is larger
_RATIO_FREE_BYTES = 256 << 20  # below this many bytes no ratio is suspicious: empty members compress very well
_DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError, tarfile.TarError, zipfile.BadZipFile)


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may hold before it is refused as a whole."""

    max_members: int  # entries of every kind
    max_total_bytes: int  # uncompressed, all members together
    max_ratio: float  # uncompressed bytes over the archive's own bytes


class DamagedMember(Exception):  # noqa: N818 - an outcome, not a failure of the program
    """One member of a source cannot be read, and the others still can."""


class Member(NamedTuple):
    """One member: `read(limit)` gives at most `limit` bytes of a regular file, and is valid until the next member.

    It raises `DamagedMember` if only this member is lost, `SourceError` if the whole archive is.
    """

    name: str
    kind: Kind
    size: int
    read: Callable[[int], bytes]
    state: str = ""  # of a file by itself, readable at any time: another text once it was replaced or written to


def members(path: Path, limits: ArchiveLimits) -> Iterator[Member]:
    """Every member in the archive's own order.

    Raises `SourceError` if the file is no archive, is damaged or truncated, or breaks `limits`.
    """
    if path.exists() and not path.is_file():  # a FIFO or a device would be waited on for ever
        raise SourceError(f"{path}: not a file; name an archive, or use kind folder for a folder")
    try:
        with path.open("rb") as stream:
            magic = stream.read(8)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}; check the path in params.yaml") from None
    try:
        yield from _zip(path, limits) if magic.startswith(b"PK") else _tar(path, magic, limits)
    except _DAMAGED as error:
        raise _broken(path, error) from None


def _broken(path: Path, error: Exception) -> SourceError:
    return SourceError(
        f"{path}: truncated or damaged, or not an archive ({error}); fetch it again. Known kinds: zip, tar, "
        "tar.gz, tar.bz2, tar.xz, tar.zst"
    )


def _decompressed(path: Path, magic: bytes) -> IO[bytes]:
    if magic.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(path))
    if magic.startswith(b"BZh"):
        return cast(IO[bytes], bz2.open(path))
    if magic.startswith(b"\xfd7zXZ"):
        return cast(IO[bytes], lzma.open(path))
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        raw = path.open("rb")
        return cast(IO[bytes], zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True, closefd=True))
    return path.open("rb")


class _Forward(io.RawIOBase):
    """A stream that only goes forward, counts what it gives, and refuses reads that only a bomb would ask for."""

    def __init__(self, stream: IO[bytes], packed_bytes: int, limits: ArchiveLimits, path: Path) -> None:
        self._stream, self._packed, self._limits, self._path = stream, max(packed_bytes, 1), limits, path
        self._position = 0
        self.last = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > _HEADER_BYTES:
            raise SourceError(f"{self._path}: a member's header claims {size} bytes; refused as a bomb")
        data = self._stream.read(size)
        self._position += len(data)
        self._check()
        self.last = data
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence or offset < self._position:
            raise tarfile.ReadError("goes backwards")
        while self._position < offset:
            data = self._stream.read(min(1 << 20, offset - self._position))
            if not data:
                break
            self._position += len(data)
            self._check()
        return self._position

    def _check(self) -> None:
        _check_size(self._position, self._packed, self._limits, self._path)


def _check_size(unpacked: int, packed: int, limits: ArchiveLimits, path: Path) -> None:
    if unpacked > limits.max_total_bytes:
        raise SourceError(
            f"{path}: unpacks to over {limits.max_total_bytes:,} bytes; raise source.max_total_bytes if it is right"
        )
    if unpacked > _RATIO_FREE_BYTES and unpacked / packed > limits.max_ratio:
        raise SourceError(f"{path}: unpacks to over {limits.max_ratio:g} times its size; refused as a bomb")


def _check_count(count: int, limits: ArchiveLimits, path: Path) -> None:
    if count > limits.max_members:
        raise SourceError(f"{path}: more than {limits.max_members:,} members; raise source.max_members if it is right")


def _tar(path: Path, magic: bytes, limits: ArchiveLimits) -> Iterator[Member]:
    with _decompressed(path, magic) as plain:
        forward = _Forward(plain, path.stat().st_size, limits, path)
        with tarfile.open(fileobj=cast(IO[bytes], forward), mode="r:", errorlevel=2) as tar:
            count = 0
            while (entry := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep every header it has seen
                count += 1
                _check_count(count, limits, path)
                yield _tar_member(entry, forward, path)
            if forward.last != bytes(tarfile.BLOCKSIZE):  # tarfile takes a missing end mark for the end
                raise tarfile.ReadError("unexpected end of data")
            while plain.read(1 << 20):  # the checksum of a compressed stream is checked at its very end
                pass


def _tar_member(entry: tarfile.TarInfo, forward: _Forward, path: Path) -> Member:
    kind: Kind = "folder" if entry.isdir() else "file" if entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE) else "other"

    def read(limit: int) -> bytes:
        wanted, parts = min(limit, entry.size), []
        try:
            forward.seek(entry.offset_data)
            while wanted:
                data = forward.read(min(wanted, 1 << 20))
                if not data:
                    raise tarfile.ReadError("unexpected end of data")
                parts.append(data)
                wanted -= len(data)
        except _DAMAGED as error:  # in one stream nothing after this place can be read
            raise _broken(path, error) from None
        return b"".join(parts)

    return Member(entry.name, kind, entry.size, read)


def _zip(path: Path, limits: ArchiveLimits) -> Iterator[Member]:
    packed, unpacked = path.stat().st_size, 0
    with zipfile.ZipFile(path) as archive:
        _check_count(len(archive.filelist), limits, path)
        for info in archive.filelist:
            unpacked += info.file_size
            _check_size(unpacked, packed, limits, path)
            mode = info.external_attr >> 16 & 0o170000
            kind: Kind = "folder" if info.is_dir() else "file" if mode in (0, 0o100000) else "other"
            if kind == "file" and info.flag_bits & 1:
                kind = "encrypted"
            yield Member(info.filename, kind, info.file_size, _zip_reader(archive, info))


def _zip_reader(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[int], bytes]:
    def read(limit: int) -> bytes:
        try:
            with archive.open(info) as stream:
                return stream.read(limit)
        except (*_DAMAGED, NotImplementedError, RuntimeError) as error:  # unknown compression, or a password
            raise DamagedMember(str(error)) from None

    return read
