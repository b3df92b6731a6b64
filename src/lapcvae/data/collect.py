"""The `download` stage's work: everything in a source becomes a packed photograph or a refused row."""

from __future__ import annotations

import itertools
from pathlib import Path

from lapcvae.data.names import is_system
from lapcvae.data.photographs import PhotographWriter
from lapcvae.data.sources import Item, SourceConfig, open_source
from lapcvae.data.taken import taken_items
from lapcvae.errors import SourceError
from lapcvae.io.archive import DamagedMember, Member
from lapcvae.io.atomic import atomic_folder
from lapcvae.io.progress import progress


def collect(config: SourceConfig, out: Path, taken: Path | None = None) -> tuple[int, int]:
    """Pack the source into `out` (see `data.photographs`); returns how many were stored and how many refused.

    `taken`: folder of batches taken in from the inbox, packed after the source.

    Raises `SourceError` if the source cannot be trusted as a whole, or holds no photograph at all.
    """
    with atomic_folder(out) as folder:
        with PhotographWriter(folder) as writer, progress(label="download", unit=" photographs") as bar:
            extra = taken_items(taken, config.identity, config.limits) if taken else ()
            for item in itertools.chain(open_source(config), extra):
                if item.member.kind != "folder":
                    _take(item, config, writer)
                    bar.update()
        if not writer.stored:
            raise SourceError(
                f"the source `{config.kind}` {config.path} holds no photograph ({writer.refused} refused)"
            )
    return writer.stored, writer.refused


def _take(item: Item, config: SourceConfig, writer: PhotographWriter) -> None:
    member, identity = item.member, item.identity
    reason = _refusal(member, config)
    if reason:
        writer.refuse(member.name, identity, reason)
        return
    try:
        data = member.read(config.max_file_bytes + 1)
    except DamagedMember:
        writer.refuse(member.name, identity, "unreadable")
        return
    if len(data) > config.max_file_bytes:
        writer.refuse(member.name, identity, "file_too_large")
    elif not data:
        writer.refuse(member.name, identity, "empty")
    else:
        writer.store(member.name, identity, data, item.split, item.points)


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
