"""The `download` stage's work: everything in a source becomes a packed photograph or a refused row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from lapcvae.data.kept_rows import KeptRows
from lapcvae.data.kept_shards import KeptShards
from lapcvae.data.known_digests import KnownDigests
from lapcvae.data.names import is_system
from lapcvae.data.photograph_writer import PhotographWriter
from lapcvae.data.sources import Item, Part, SourceConfig, open_source
from lapcvae.data.taken import taken_parts
from lapcvae.errors import SourceError
from lapcvae.io.archive import DamagedMember, Member
from lapcvae.io.atomic import atomic_folder
from lapcvae.io.progress import progress

# Part of the key of a part's rows; raise it when what becomes of a member, how it is noted or where shards end changes.
_FORMAT = "2"


def collect(config: SourceConfig, out: Path, taken: Path | None = None, cache: Path | None = None) -> tuple[int, int]:
    """Pack the source into `out` (see `data.photographs`); returns how many were stored and how many refused.

    `taken`: folder of batches taken in from the inbox, packed after the source. `cache`: where a run leaves what lets
    the next one neither read files and archives nor write shards that are as they were; the bytes that come out do not
    depend on it.

    Raises `SourceError` if the source cannot be trusted as a whole, or holds no photograph at all.
    """
    shards, digests, places = KeptShards(cache), KnownDigests(cache), dict[str, tuple[int, int]]()
    with (
        KeptRows(cache) as rows,
        atomic_folder(out) as folder,
        PhotographWriter(folder, shards) as writer,
        progress(label="download", unit=" photographs") as bar,
    ):
        for part in _parts(config, taken, digests):
            digest = part.digest() if cache else ""
            key, first, whole = _key(digest, config), writer.tell(), True
            known = rows.find(key) if digest else None
            if known is None or not writer.repeat(known):
                for item in part.items:
                    if item.member.kind != "folder":
                        whole &= _take(item, config, writer)
                        bar.update()
                writer.cut()
            if digest and whole:
                places[key] = first, writer.tell()
        if not writer.stored:
            raise SourceError(
                f"the source `{config.kind}` {config.path} holds no photograph ({writer.refused} refused)"
            )
    shards.keep(out)
    rows.keep(out, places)
    digests.keep()
    return writer.stored, writer.refused


def _parts(config: SourceConfig, taken: Path | None, digests: KnownDigests) -> Iterator[Part]:
    yield from open_source(config, digests)
    if taken:
        yield from taken_parts(taken, config.identity, config.limits, digests)


def _key(digest: str, config: SourceConfig) -> str:
    settings = (config.kind, config.identity, config.max_file_bytes, config.limits)
    return hashlib.sha256(repr((_FORMAT, digest, settings)).encode()).hexdigest()


def _take(item: Item, config: SourceConfig, writer: PhotographWriter) -> bool:
    """Store or refuse a member; returns whether the same would become of it another time."""
    member, identity = item.member, item.identity
    reason = _refusal(member, config)
    if reason:
        writer.refuse(member.name, identity, reason)
        return True
    try:
        data = member.read(config.max_file_bytes + 1)
    except DamagedMember:
        writer.refuse(member.name, identity, "unreadable")
        return not member.state  # a file by itself may be readable for another user, or when the disk is well again
    if len(data) > config.max_file_bytes:
        writer.refuse(member.name, identity, "file_too_large")
    elif not data:
        writer.refuse(member.name, identity, "empty")
    else:
        writer.store(member.name, identity, data, item.split, item.points)
    return True


def _refusal(member: Member, config: SourceConfig) -> str:
    if is_system(member.name):
        return "system_file"
    if member.kind == "other":
        return "not_a_file"
    if member.kind == "encrypted":
        return "encrypted"
    if member.kind == "damaged":
        return "unreadable"
    if member.size > config.max_file_bytes:
        return "file_too_large"
    return "" if member.size else "empty"
