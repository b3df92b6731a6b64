"""The `align` stage's work: every photograph ends accepted, with its aligned face, or rejected with a reason."""

from __future__ import annotations

import functools
import hashlib
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lapcvae.data.ahead import batched, one_ahead
from lapcvae.data.decode import DecodeConfig
from lapcvae.data.duplicates import ACROSS, DUPLICATE, HASH_BYTES, DuplicatesConfig, decide
from lapcvae.data.executor import ExecutorConfig, open_executor
from lapcvae.data.judge import AlignConfig, judge, reject
from lapcvae.data.manifest import COLUMNS, ImagesWriter, ManifestWriter, Row, values_of
from lapcvae.data.photographs import Entry, read_index, read_photograph
from lapcvae.data.row_spool import RowSpool
from lapcvae.data.sight import Sight, read_sights
from lapcvae.data.split import SPLITS, SplitConfig, split_of
from lapcvae.data.warp import cut, measure
from lapcvae.errors import DataError
from lapcvae.io.atomic import atomic_folder
from lapcvae.io.cache import ContentCache, key_of
from lapcvae.io.progress import progress

_CHUNK = 64  # photographs a task
_BATCH = 1024  # photographs looked up and written at a time
_FORMAT = "5"  # part of the cache key; raise it when the warp, the measures or what is kept of them change
_STATUS, _REASON, _ROW, _NEAR = (COLUMNS.index(name) for name in ("status", "reason", "row", "near"))
_OUTCOMES = {DUPLICATE: "duplicate", ACROSS: "near_duplicate_across_splits"}


@dataclass(frozen=True)
class AlignInputs:
    """What `align` reads besides parameters: the packed photographs, what they show, and what the source is called."""

    raw: Path
    landmarks: Path
    source: str


@dataclass(frozen=True)
class _Place:
    """What is the same for all photographs of a run."""

    raw: Path
    decode: DecodeConfig
    size: int


_Task = tuple[int, int, int, bytes]  # shard, offset, bytes; the similarity's six float64, none if it is rejected
_LOOK = struct.Struct("<4d32s")  # what is measured of a face, and the SHA-256 of its pixels; the pixels follow


@dataclass(frozen=True)
class _Batch:
    """Photographs whose faces are known or being made: the rows, the key of each face, and the faces to come."""

    rows: list[tuple[Row, bytes]]
    known: dict[bytes, bytes]
    missing: list[bytes]
    coming: Iterator[bytes]


@dataclass(frozen=True)
class _Likeness:
    """By what duplicates are found, of the photographs that stand so far: 49 bytes each, held in memory."""

    pixels: bytearray = field(default_factory=bytearray)
    hashes: bytearray = field(default_factory=bytearray)
    ranks: bytearray = field(default_factory=bytearray)

    def add(self, row: Row) -> None:
        self.pixels.extend(bytes.fromhex(row.pixels_sha256[:32]))
        self.hashes.extend(bytes.fromhex(row.phash))
        self.ranks.append(SPLITS.index(row.split))

    def decide(self, config: DuplicatesConfig) -> Iterator[tuple[int, str]]:
        """Of each photograph: its outcome, and the name of its group of near-duplicates, "" if it is in none."""
        digests = np.frombuffer(self.pixels, dtype="V16")
        table = np.frombuffer(self.hashes, dtype=np.uint8).reshape(-1, HASH_BYTES)
        outcome, labels = decide(digests, table, np.frombuffer(self.ranks, dtype=np.uint8), config.max_distance_bits)
        names = _near_names(digests, labels)
        for verdict, label in zip(outcome.tolist(), labels.tolist(), strict=True):
            yield verdict, names.get(label, "")


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
    work = functools.partial(_align_one, _Place(inputs.raw.resolve(), decode_config, config.size_px))
    likeness = _Likeness()
    with (
        ContentCache(cache) as kept,
        atomic_folder(out) as folder,
        ImagesWriter(folder / "images.npy", config.size_px) as images,
        open_executor(executor) as workers,
        RowSpool() as waiting,
        progress(label="align", unit=" photographs") as bar,
    ):

        def begin(batch: list[tuple[Row, _Task]]) -> _Batch:
            keyed = [(row, key_of(version, row.sha256, task[3].hex()) if task[3] else b"") for row, task in batch]
            tasks = {key: task for (_, key), (_, task) in zip(keyed, batch, strict=True) if key}
            known = kept.get(list(tasks))
            missing = [key for key in tasks if key not in known]
            coming = workers.run(work, [tasks[key] for key in missing], _CHUNK, _crashed)
            return _Batch(keyed, known, missing, coming)

        def finish(batch: _Batch) -> None:
            fresh = {key: face for key, face in zip(batch.missing, batch.coming, strict=True) if face}
            kept.put(fresh.items())
            faces = batch.known | fresh
            for row, key in batch.rows:
                if key:
                    likeness.add(row)
                    _finish(row, faces.get(key, b""), images, config)
            waiting.append((row, bool(key)) for row, key in batch.rows)
            bar.update(len(batch.rows))

        one_ahead(_judged(inputs, config, split), begin, finish)
        with ManifestWriter(folder / "manifest.csv") as manifest:
            return _write(waiting, likeness.decide(duplicates), images, manifest)


def _write(
    waiting: RowSpool, decisions: Iterator[tuple[int, str]], images: ImagesWriter, manifest: ManifestWriter
) -> Counter[str]:
    """Write the rows that waited, and take the faces of duplicates out of `images`; counts as `align` returns them."""
    counts: Counter[str] = Counter()
    in_vain: list[int] = []
    for batch in waiting.read():
        for values, stood in batch:
            if stood:
                verdict, values[_NEAR] = next(decisions)
                if verdict in _OUTCOMES:
                    if values[_ROW] >= 0:
                        in_vain.append(values[_ROW])
                    values[:] = values_of(_duplicate(Row(*values), _OUTCOMES[verdict]))
                elif values[_ROW] >= 0:
                    values[_ROW] -= len(in_vain)
            counts[values[_REASON] or values[_STATUS]] += 1
        manifest.write(values for values, _ in batch)
    images.remove(in_vain)
    return counts


def _duplicate(row: Row, reason: str) -> Row:
    row.brightness = row.contrast = row.aligned_sharpness = row.black_share = 0.0
    reject(row, reason)
    return row


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
        matrices = judge(rows, [sight for _, sight in batch], config, [bool(entry.points) for entry, _ in batch])
        judged = []
        for row, (entry, _), matrix in zip(rows, batch, matrices, strict=True):
            if matrix is not None:
                row.group = row.identity or row.pixels_sha256
                row.split = entry.split or split_of(row.group, split)
            judged.append((row, (entry.shard, entry.offset, entry.bytes, b"" if matrix is None else matrix.tobytes())))
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


def _align_one(place: _Place, task: _Task) -> bytes:
    shard, offset, size, packed = task
    data = read_photograph(place.raw, shard, offset, size)
    face = cut(data, np.frombuffer(packed).reshape(2, 3), place.size, place.decode)
    pixels = face.tobytes()
    return _LOOK.pack(*measure(face), hashlib.sha256(pixels).digest()) + pixels


def _crashed(task: _Task) -> bytes:
    return b""


def _finish(row: Row, packed: bytes, images: ImagesWriter, config: AlignConfig) -> None:
    if not packed:
        reject(row, "crashed")
        return
    row.brightness, row.contrast, row.aligned_sharpness, row.black_share, digest = _LOOK.unpack_from(packed)
    if row.contrast < config.min_contrast:
        reject(row, "flat")
    else:
        row.row, row.aligned_sha256 = images.append(memoryview(packed)[_LOOK.size :]), digest.hex()
