"""The `align` stage's work: every photograph ends accepted, with its aligned face, or rejected with a reason."""

from __future__ import annotations

import csv
import functools
import hashlib
import itertools
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lapcvae.data.ahead import batched, one_ahead
from lapcvae.data.decode import DecodeConfig
from lapcvae.data.duplicates import ACROSS, DUPLICATE, HASH_BYTES, KEEP, DuplicatesConfig, decide
from lapcvae.data.executor import ExecutorConfig, open_executor
from lapcvae.data.judge import AlignConfig, judge, reject
from lapcvae.data.manifest import ImagesWriter, ManifestWriter, Row, moved_up, row_of
from lapcvae.data.photographs import Entry, PackedFolder, packed_folder, read_index, read_photograph
from lapcvae.data.row_spool import RowSpool
from lapcvae.data.sight import Sight, read_sights
from lapcvae.data.split import SPLITS, SplitConfig, split_of
from lapcvae.data.warp import cut, measure
from lapcvae.errors import DataError
from lapcvae.io.atomic import atomic_folder
from lapcvae.io.cache import key_of
from lapcvae.io.progress import progress
from lapcvae.io.record_store import DIGEST_BYTES, RecordFile, RecordStore, write_record

_BATCH = 4096  # photographs looked up and written at a time
_FORMAT = "7"  # part of the cache key; raise it when the warp, the measures or what is kept of them change
_PIXELS = "pixels"
_REASONS = {DUPLICATE: "duplicate", ACROSS: "near_duplicate_across_splits"}


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


@dataclass(frozen=True)
class _Batch:
    """Photographs whose faces are known or being made: the rows, the key of each face, and the faces to come."""

    rows: list[tuple[Row, bytes]]
    known: dict[bytes, tuple[bytes, int]]
    missing: list[bytes]
    places: range
    coming: Iterator[bytes]


@dataclass(frozen=True)
class _Likeness:
    """By what duplicates are found, of the photographs that stand so far: 49 bytes each, held in memory."""

    pixels: bytearray = field(default_factory=bytearray)
    hashes: bytearray = field(default_factory=bytearray)
    ranks: bytearray = field(default_factory=bytearray)

    def add(self, rows: list[Row]) -> None:
        self.pixels.extend(bytes.fromhex("".join(row.pixels_sha256[:32] for row in rows)))
        self.hashes.extend(bytes.fromhex("".join(row.phash for row in rows)))
        self.ranks.extend(SPLITS.index(row.split) for row in rows)

    def decide(self, config: DuplicatesConfig) -> dict[int, tuple[str, str]]:
        """Of each photograph that is like another: why it is rejected, or "", and the name of its group, or ""."""
        digests = np.frombuffer(self.pixels, dtype="V16")
        table = np.frombuffer(self.hashes, dtype=np.uint8).reshape(-1, HASH_BYTES)
        outcome, labels = decide(digests, table, np.frombuffer(self.ranks, dtype=np.uint8), config.max_distance_bits)
        names = _near_names(digests, labels)
        alike = np.flatnonzero((outcome != KEEP) | np.isin(labels, list(names)))
        return {i: (_REASONS.get(int(outcome[i]), ""), names.get(int(labels[i]), "")) for i in alike.tolist()}


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
    likeness = _Likeness()
    counts: Counter[str] = Counter()
    with (
        RecordStore(cache / f"faces-{config.size_px}", {_PIXELS: config.size_px**2 * 3}) as kept,
        atomic_folder(out) as folder,
        ImagesWriter(folder / "images.npy", config.size_px) as images,
        open_executor(executor) as workers,
        RowSpool() as waiting,
        progress(label="align", unit=" photographs") as bar,
    ):
        pixels = kept.files[_PIXELS]
        file = pixels if executor.kind == "processes" else None
        work = functools.partial(_align_one, _Place(packed_folder(inputs.raw), decode_config, config.size_px, file))

        def begin(batch: list[tuple[Row, _Task]]) -> _Batch:
            keyed = [(row, key_of(version, row.sha256, task[3].hex()) if task[3] else b"") for row, task in batch]
            tasks = {key: task for (_, key), (_, task) in zip(keyed, batch, strict=True) if key}
            known = kept.find(list(tasks))
            missing = [key for key in tasks if key not in known]
            places = kept.reserve(len(missing))
            placed = [(place, tasks[key]) for place, key in zip(places, missing, strict=True)]
            coming = workers.run(work, placed, workers.chunk(len(placed)), _crashed)
            return _Batch(keyed, known, missing, places, coming)

        def finish(batch: _Batch) -> None:
            coming = zip(batch.missing, batch.places, batch.coming, strict=True)
            fresh = [(key, place, made) for key, place, made in coming if made]
            if file is None:
                fresh = [(key, place, _put(pixels, place, made)) for key, place, made in fresh]
            kept.keep(fresh)
            faces = batch.known | {key: (made, place) for key, place, made in fresh}
            likeness.add([row for row, key in batch.rows if key])
            good: list[int] = []
            for row, key in batch.rows:
                if key:
                    made, place = faces.get(key, (b"", -1))
                    if _finish(row, made, config):
                        row.row = images.count + len(good)
                        good.append(place)
            for part in kept.read(_PIXELS, good):
                images.append(part)
            rows = [row for row, _ in batch.rows]
            waiting.append(rows, (bool(key) for _, key in batch.rows))
            counts.update(row.reason or row.status for row in rows)
            bar.update(len(batch.rows))

        one_ahead(_judged(inputs, config, split), begin, finish)
        images.flush()  # while duplicates are looked for
        with ManifestWriter(folder / "manifest.csv") as manifest:
            _write(waiting, likeness.decide(duplicates), images, manifest, counts)
    return +counts


def _write(
    waiting: RowSpool,
    alike: dict[int, tuple[str, str]],
    images: ImagesWriter,
    manifest: ManifestWriter,
    counts: Counter[str],
) -> None:
    """Write the rows that waited; take the faces of duplicates out of `images`, and their rows from `counts`."""
    in_vain: list[int] = []
    standing = itertools.count()
    for line, stood in waiting.read():
        like = alike.get(next(standing)) if stood else None
        if like is None:
            manifest.write_line(moved_up(line, len(in_vain)) if in_vain else line)
            continue
        row = row_of(next(csv.reader([line])))
        reason, row.near = like
        if reason:
            if row.row >= 0:
                in_vain.append(row.row)
            counts.subtract([row.reason or row.status])
            _duplicate(row, reason)
            counts.update([reason])
        elif row.row >= 0:
            row.row -= len(in_vain)
        manifest.write([row])
    images.remove(in_vain)


def _duplicate(row: Row, reason: str) -> None:
    row.brightness = row.contrast = row.aligned_sharpness = row.black_share = 0.0
    reject(row, reason)


def _near_names(digests: np.ndarray, labels: np.ndarray) -> dict[int, str]:
    """A name for each group of at least two, made of its members' pixels and so the same whatever their order."""
    groups, counts = np.unique(labels, return_counts=True)
    several = set(groups[counts > 1].tolist())
    names: dict[int, str] = {}
    for i in np.flatnonzero(np.isin(labels, list(several))):
        label, name = int(labels[i]), digests[i].tobytes().hex()
        names[label] = min(names.get(label, name), name)
    return names


def _judged(inputs: AlignInputs, config: AlignConfig, split: SplitConfig) -> Iterator[list[tuple[Row, _Task]]]:
    for batch in batched(_seen(inputs), _BATCH):
        rows = [Row(entry.name, inputs.source, entry.identity, entry.sha256, "accepted") for entry, _ in batch]
        for row, (entry, sight) in zip(rows, batch, strict=True):
            if sight is None:
                reject(row, entry.reason)
        crops = judge(rows, [sight for _, sight in batch], config, [bool(entry.points) for entry, _ in batch])
        judged = []
        for row, (entry, _), crop in zip(rows, batch, crops, strict=True):
            if crop is not None:
                row.group = row.identity or row.pixels_sha256
                row.split = entry.split or split_of(row.group, split)
            judged.append((row, (entry.shard, entry.offset, entry.bytes, b"" if crop is None else crop.tobytes())))
        yield judged


def _seen(inputs: AlignInputs) -> Iterator[tuple[Entry, Sight | None]]:
    """Each entry of the index with what it shows, None if the source refused it."""
    sights = read_sights(inputs.landmarks)
    for entry in read_index(inputs.raw):
        if entry.reason:
            yield entry, None
            continue
        sight = next(sights, None)
        if sight is None or sight.sha256 != entry.sha256:
            raise DataError(f"{inputs.landmarks}: is not of {inputs.raw} ({entry.name}); run `dvc repro landmarks`")
        yield entry, sight


def _align_one(place: _Place, task: tuple[int, _Task]) -> bytes:
    """Make one face and put it in its place: what `_MADE` holds of it, and its pixels too where there is no file."""
    number, (shard, offset, size, packed) = task
    data = read_photograph(place.raw, shard, offset, size)
    face = cut(data, np.frombuffer(packed).reshape(2, 3), place.size, place.decode)
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


def _finish(row: Row, made: bytes, config: AlignConfig) -> bool:
    """Fill in what is known after the warp; returns whether the face is good."""
    if not made:
        reject(row, "crashed")
        return False
    digest, row.brightness, row.contrast, row.aligned_sharpness, row.black_share = _MADE.unpack(made)
    if row.contrast < config.min_contrast:
        reject(row, "flat")
        return False
    row.aligned_sha256 = digest.hex()
    return True
