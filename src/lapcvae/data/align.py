"""The `align` stage's work: every photograph ends accepted, with its aligned face, or rejected with a reason."""

from __future__ import annotations

import csv
import functools
import hashlib
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lapcvae.data.ahead import one_ahead
from lapcvae.data.decode import DecodeConfig
from lapcvae.data.duplicates import DuplicatesConfig
from lapcvae.data.executor import ExecutorConfig, open_executor
from lapcvae.data.found import MADE, REJECTED, Found, found_of, packed, unpacked
from lapcvae.data.judge import AlignConfig, judge, reject
from lapcvae.data.likeness import AllLikeness, likeness_of
from lapcvae.data.manifest import COLUMNS, ImagesWriter, ManifestWriter, Row, numbered, row_of
from lapcvae.data.photographs import PackedFolder, packed_folder, read_photograph
from lapcvae.data.row_spool import RowSpool
from lapcvae.data.seen import Seen, parsed, read_seen
from lapcvae.data.split import SplitConfig, split_of
from lapcvae.data.warp import cut, measure
from lapcvae.io.atomic import atomic_folder
from lapcvae.io.cache import ContentCache, key_of
from lapcvae.io.progress import progress
from lapcvae.io.record_store import DIGEST_BYTES, RecordFile, RecordStore, write_record

_BATCH = 4096  # photographs looked up and written at a time, at most
_CHUNK = 16  # of them handed to a worker at a time, as a rule
_FORMAT = "8"  # part of the cache keys; raise it when the rules, the warp, the measures or what is kept change
_PIXELS = "pixels"
_CRASHED = "crashed"


@dataclass(frozen=True)
class AlignInputs:
    """What `align` reads besides parameters: the packed photographs, what they show, and what the source is called."""

    raw: Path
    landmarks: Path
    source: str


@dataclass(frozen=True)
class _Place:
    """What is the same for all photographs of a run."""

    raw: PackedFolder
    decode: DecodeConfig
    size: int
    file: RecordFile | None  # where to put the pixels; None where this is another machine, and they have to be sent


_Task = tuple[str, int, int, bytes]  # shard, offset, bytes; the crop's six float64, none if it is rejected
_MADE = struct.Struct(f"<{DIGEST_BYTES}s4d")  # the SHA-256 of a face's pixels, and what is measured of it


class _Judged(NamedTuple):
    """Of a shard's photographs that are not known yet: the key of it all, the rows, and the key of each row's face.

    A photograph that is rejected before its face is to be made has b"" for a key.
    """

    key: bytes
    rows: list[Row]
    faces: list[bytes]


@dataclass(frozen=True)
class _Batch:
    """Some shards' photographs, each found earlier or judged now; faces by key; and those that are being made."""

    shards: list[Found | _Judged]
    known: dict[bytes, tuple[bytes, int]]
    missing: list[bytes]
    places: range
    coming: Iterator[bytes]


def align(
    inputs: AlignInputs,
    out: Path,
    cache: Path,
    config: AlignConfig,
    decode_config: DecodeConfig,
    split: SplitConfig,
    duplicates: DuplicatesConfig,
    executor: ExecutorConfig,
) -> Counter[str]:
    """Write `out`/images.npy and `out`/manifest.csv (see `data.manifest`); returns rows by status or reason.

    Faces are made while photographs are still being judged. Which of them are duplicates is known only at the end:
    their rows wait until then, and their faces, made in vain, are taken out again.
    """
    version = f"{_FORMAT}|{decode_config}|{config.size_px}"
    whole_version = f"{version}|{config}|{split}|{inputs.source}|{COLUMNS}"
    likeness = AllLikeness()
    counts: Counter[str] = Counter()
    with (
        RecordStore(cache / f"faces-{config.size_px}", {_PIXELS: config.size_px**2 * 3}) as kept,
        ContentCache(cache / "found.sqlite") as found_before,
        atomic_folder(out) as folder,
        ImagesWriter(folder / "images.npy", config.size_px) as images,
        open_executor(executor) as workers,
        RowSpool() as waiting,
        progress(label="align", unit=" photographs") as bar,
    ):
        pixels = kept.files[_PIXELS]
        file = pixels if executor.kind == "processes" else None
        work = functools.partial(_align_one, _Place(packed_folder(inputs.raw), decode_config, config.size_px, file))

        def begin(batch: list[Seen]) -> _Batch:
            keys = [seen.key(whole_version) for seen in batch]
            found = {key: unpacked(data) for key, data in found_before.get(keys).items()}
            known = kept.find([face for of_shard in found.values() for face in of_shard.faces])
            found = {key: of_shard for key, of_shard in found.items() if known.keys() >= set(of_shard.faces)}
            new = [(key, seen) for key, seen in zip(keys, batch, strict=True) if key not in found]
            judged, tasks = _judged(new, inputs, config, split, version)
            known |= kept.find(list(tasks))
            missing = [face for face in tasks if face not in known]
            places = kept.reserve(len(missing))
            placed = [(place, tasks[face]) for place, face in zip(places, missing, strict=True)]
            coming = workers.run(work, placed, workers.chunk(len(placed)), _crashed)
            shards = [found[key] if key in found else judged[key] for key in keys]
            return _Batch(shards, known, missing, places, coming)

        def finish(batch: _Batch) -> None:
            coming = zip(batch.missing, batch.places, batch.coming, strict=True)
            fresh = [(key, place, made) for key, place, made in coming if made]
            if file is None:
                fresh = [(key, place, _put(pixels, place, made)) for key, place, made in fresh]
            kept.keep(fresh)
            faces = batch.known | {key: (made, place) for key, place, made in fresh}
            found, to_keep = list[Found](), list[tuple[bytes, bytes]]()
            for of_shard in batch.shards:
                if isinstance(of_shard, _Judged):
                    key, of_shard = of_shard.key, _finished(of_shard, faces, config)
                    if _CRASHED not in of_shard.outcomes:
                        to_keep.append((key, packed(of_shard)))
                found.append(of_shard)
            found_before.put(to_keep)
            for part in kept.read(_PIXELS, [faces[key][1] for of_shard in found for key in of_shard.faces]):
                images.append(part)
            for of_shard in found:
                likeness.add(of_shard.likeness)
                waiting.append(of_shard.text, of_shard.states)
                counts.update(of_shard.outcomes)
                bar.update(len(of_shard.states))

        # Small enough for the workers to have a whole batch in hand while the one before is written.
        some = min(_BATCH, workers.ahead(_CHUNK))
        one_ahead(_batches(read_seen(inputs.raw, inputs.landmarks), some), begin, finish)
        images.flush()  # while duplicates are looked for
        with ManifestWriter(folder / "manifest.csv") as manifest:
            _write(waiting, likeness.decide(duplicates), images, manifest, counts)
    return +counts


def _batches(shards: Iterator[Seen], most: int) -> Iterator[list[Seen]]:
    batch, photographs = list[Seen](), 0
    for seen in shards:
        batch.append(seen)
        photographs += len(seen.entries)
        if photographs >= most:
            yield batch
            batch, photographs = [], 0
    if batch:
        yield batch


def _write(
    waiting: RowSpool,
    alike: dict[int, tuple[str, str]],
    images: ImagesWriter,
    manifest: ManifestWriter,
    counts: Counter[str],
) -> None:
    """Write the rows that waited; take the faces of duplicates out of `images`, and their rows from `counts`."""
    in_vain: list[int] = []
    stood = made = 0  # of the shards before: photographs that were to get a face, and those that did
    for text, states in waiting.read():
        standing = range(stood, stood + len(states) - states.count(REJECTED))
        if alike.keys().isdisjoint(standing):
            manifest.write_text(numbered(text, made - len(in_vain)))
        else:
            places, rows = iter(standing), iter(range(made, made + states.count(MADE)))
            for line, state in zip(text.splitlines(keepends=True), states, strict=True):
                like = None if state == REJECTED else alike.get(next(places))
                place = next(rows) if state == MADE else -1
                line = numbered(line, place - len(in_vain))
                if like is None:
                    manifest.write_text(line)
                    continue
                row = row_of(next(csv.reader([line.decode()])))
                reason, row.near = like
                if reason:
                    if place >= 0:
                        in_vain.append(place)
                    counts.subtract([row.reason or row.status])
                    _duplicate(row, reason)
                    counts.update([reason])
                manifest.write([row])
        stood, made = standing.stop, made + states.count(MADE)
    images.remove(in_vain)


def _duplicate(row: Row, reason: str) -> None:
    row.brightness = row.contrast = row.aligned_sharpness = row.black_share = 0.0
    reject(row, reason)


def _judged(
    shards: list[tuple[bytes, Seen]], inputs: AlignInputs, config: AlignConfig, split: SplitConfig, version: str
) -> tuple[dict[bytes, _Judged], dict[bytes, _Task]]:
    """Each shard by its key as far as it is known before faces are made; and what is to be made, by the faces' keys."""
    pairs = [(key, pair) for key, seen in shards for pair in parsed(seen, inputs.raw, inputs.landmarks)]
    rows = [Row(entry.name, inputs.source, entry.identity, entry.sha256, "accepted") for _, (entry, _) in pairs]
    for row, (_, (entry, sight)) in zip(rows, pairs, strict=True):
        if sight is None:
            reject(row, entry.reason)
    crops = judge(rows, [sight for _, (_, sight) in pairs], config, [bool(entry.points) for _, (entry, _) in pairs])
    judged = {key: _Judged(key, [], []) for key, _ in shards}
    tasks: dict[bytes, _Task] = {}
    for row, (key, (entry, _)), crop in zip(rows, pairs, crops, strict=True):
        face = b""
        if crop is not None:
            row.group = row.identity or row.pixels_sha256
            row.split = entry.split or split_of(row.group, split)
            face = key_of(version, row.sha256, crop.tobytes().hex())
            tasks[face] = entry.shard, entry.offset, entry.bytes, crop.tobytes()
        judged[key].rows.append(row)
        judged[key].faces.append(face)
    return judged, tasks


def _align_one(place: _Place, task: tuple[int, _Task]) -> bytes:
    """Make one face and put it in its place: what `_MADE` holds of it, and its pixels too where there is no file."""
    number, (shard, offset, size, crop) = task
    data = read_photograph(place.raw, shard, offset, size)
    face = cut(data, np.frombuffer(crop).reshape(2, 3), place.size, place.decode)
    pixels = face.tobytes()
    made = _MADE.pack(hashlib.sha256(pixels).digest(), *measure(face))
    if place.file is None:
        return made + pixels
    write_record(place.file, number, pixels)
    return made


def _crashed(task: tuple[int, _Task]) -> bytes:
    return b""


def _put(file: RecordFile, place: int, sent: bytes) -> bytes:
    write_record(file, place, sent[_MADE.size :])
    return sent[: _MADE.size]


def _finished(judged: _Judged, faces: dict[bytes, tuple[bytes, int]], config: AlignConfig) -> Found:
    likeness = likeness_of([row for row, key in zip(judged.rows, judged.faces, strict=True) if key])
    for row, key in zip(judged.rows, judged.faces, strict=True):
        if key:
            _fill_in(row, faces[key][0] if key in faces else b"", config)
    return found_of(judged.rows, judged.faces, likeness)


def _fill_in(row: Row, made: bytes, config: AlignConfig) -> None:
    """What is known after the warp."""
    if not made:
        reject(row, _CRASHED)
        return
    digest, row.brightness, row.contrast, row.aligned_sharpness, row.black_share = _MADE.unpack(made)
    if row.contrast < config.min_contrast:
        reject(row, "flat")
    else:
        row.aligned_sha256, row.row = digest.hex(), 0
