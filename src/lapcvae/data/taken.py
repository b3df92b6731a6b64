"""Batches taken in from the inbox: tars in `data/taken`, read after the source as if they were part of it."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from lapcvae.data.known_digests import KnownDigests
from lapcvae.data.names import parent
from lapcvae.data.sources import Item, Part
from lapcvae.errors import SourceError
from lapcvae.io.archive import ArchiveLimits, members
from lapcvae.io.atomic import sha256_file, told

FOLDER = Path("data/taken")
_NAME = re.compile(r"(\d{4,})-([0-9a-f]{16})\.tar")


def batches(folder: Path = FOLDER) -> list[Path]:
    """The taken batches in the order they came."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.partition("-")[0]))


def taken_parts(
    folder: Path, identity: Literal["folder", "none"], limits: ArchiveLimits, digests: KnownDigests
) -> Iterator[Part]:
    """Every batch with its members. Raises `SourceError` for a batch that is not what its name says."""
    for path in batches(folder):
        yield _part(path, identity, limits, digests)


def _part(path: Path, identity: Literal["folder", "none"], limits: ArchiveLimits, digests: KnownDigests) -> Part:
    digest, named = digests.sha256(path), path.stem.partition("-")[2]
    if not digest.startswith(named):
        digest = sha256_file(path)  # what is known of it may be damaged
    if not digest.startswith(named):
        raise SourceError(
            f"{path}: damaged, its SHA-256 is not the one in its name; restore it: `dvc checkout -f {path}`"
        )
    return Part(lambda: f"batch {digest}", _items(path, identity, limits))


def _items(path: Path, identity: Literal["folder", "none"], limits: ArchiveLimits) -> Iterator[Item]:
    for member in members(path, limits):
        inside = member.name.partition("/")[2]  # the first part is the batch's own number
        yield Item(member, parent(inside) if identity == "folder" else "")


def write_batch(number: str, photographs: Path, files: list[str], out: Path) -> None:
    """Pack `files` below the folder `photographs` as a tar; equal names and bytes give an equal tar.

    Written in place: the caller makes it appear whole. Raises `StorageError`, or `SourceError` for a file that changed
    while it was read.
    """
    with told(out), tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in files:
            info = tarfile.TarInfo(f"{number}/{name}")
            info.size = (photographs / name).stat().st_size
            with (photographs / name).open("rb") as stream:
                try:
                    tar.addfile(info, stream)
                except OSError as error:
                    if error.errno is None:  # tarfile's own: fewer bytes than the size said
                        raise SourceError(f"{photographs / name}: changed while it was taken in; run again") from None
                    raise
