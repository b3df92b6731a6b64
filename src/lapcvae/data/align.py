"""The `align` stage's work: every photograph ends accepted, with its aligned face, or rejected with a reason."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lapcvae.data.cache import ContentCache, key_of
from lapcvae.data.decode import DecodeConfig, decode_again
from lapcvae.data.duplicates import ACROSS, DUPLICATE, HASH_BYTES, DuplicatesConfig, decide
from lapcvae.data.executor import ExecutorConfig, open_executor
from lapcvae.data.judge import AlignConfig, judge, reject
from lapcvae.data.manifest import ImagesWriter, ManifestWriter, Row
from lapcvae.data.photographs import Entry, read_index, read_photograph
from lapcvae.data.sight import Sight, read_sights
from lapcvae.data.split import SPLITS, SplitConfig, split_of
from lapcvae.data.warp import Look, measure, warp
from lapcvae.errors import DataError
from lapcvae.io.atomic import atomic_folder
from lapcvae.io.progress import progress

_CHUNK = 64  # photographs a task
_BATCH = 1024  # photographs looked up and written at a time
_FORMAT = "2"  # part of the cache key; raise it when the warp or the measures change
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


_Task = tuple[int, int, int, bytes]  # shard, offset, bytes; the similarity's six float64


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
    """Write `out`/images.npy and `out`/manifest.csv (see `data.manifest`); returns rows by status or reason."""
    counts: Counter[str] = Counter()
    rows = _decided(inputs, config, split, duplicates)
    version = f"{_FORMAT}|{decode_config}|{config.size_px}"
    work = functools.partial(_align_one, _Place(inputs.raw.resolve(), decode_config, config.size_px))
    with (
        ContentCache(cache) as kept,
        atomic_folder(out) as folder,
        ImagesWriter(folder / "images.npy", config.size_px) as images,
        ManifestWriter(folder / "manifest.csv") as manifest,
        open_executor(executor) as workers,
        progress(label="align", unit=" photographs") as bar,
    ):
        while batch := list(itertools.islice(rows, _BATCH)):
            tasks: dict[bytes, _Task] = {}
            for entry, _, matrix in batch:
                if matrix is not None:
                    packed = matrix.tobytes()
                    key = key_of(version, entry.sha256, packed.hex())
                    tasks[key] = (entry.shard, entry.offset, entry.bytes, packed)
            known = kept.get(list(tasks))
            missing = [key for key in tasks if key not in known]
            results = workers.run(work, [tasks[key] for key in missing], _CHUNK, _crashed)
            fresh = {key: result for key, result in zip(missing, results, strict=True) if result}
            kept.put(fresh.items())
            faces = iter([(known | fresh).get(key, b"") for key in tasks])
            for _, row, matrix in batch:
                if matrix is not None:
                    _finish(row, next(faces), images, config)
                manifest.write(row)
                counts[row.reason or row.status] += 1
            bar.update(len(batch))
    return counts


def _decided(
    inputs: AlignInputs, config: AlignConfig, split: SplitConfig, duplicates: DuplicatesConfig
) -> Iterator[tuple[Entry, Row, np.ndarray | None]]:
    """Every photograph with its row and, unless it is rejected by now, its similarity to the template."""
    pixels, hashes, ranks = bytearray(), bytearray(), bytearray()
    for _, row, matrix in _judged(inputs, config, split):
        if matrix is not None:
            pixels += bytes.fromhex(row.pixels_sha256)[:16]
            hashes += bytes.fromhex(row.phash)
            ranks.append(SPLITS.index(row.split))
    digests = np.frombuffer(pixels, dtype="V16")
    table = np.frombuffer(hashes, dtype=np.uint8).reshape(-1, HASH_BYTES)
    outcome, labels = decide(digests, table, np.frombuffer(ranks, dtype=np.uint8), duplicates.max_distance_bits)
    names = _near_names(digests, labels)
    candidate = 0
    for entry, row, matrix in _judged(inputs, config, split):
        if matrix is None:
            yield entry, row, None
            continue
        row.near = names.get(int(labels[candidate]), "")
        verdict = int(outcome[candidate])
        candidate += 1
        if verdict in _OUTCOMES:
            reject(row, _OUTCOMES[verdict])
            matrix = None
        yield entry, row, matrix


def _near_names(digests: np.ndarray, labels: np.ndarray) -> dict[int, str]:
    """A name for each group of at least two, made of its members' pixels and so the same whatever their order."""
    groups, counts = np.unique(labels, return_counts=True)
    several = set(groups[counts > 1].tolist())
    names: dict[int, str] = {}
    for i in np.flatnonzero(np.isin(labels, list(several))):
        label, name = int(labels[i]), digests[i].tobytes().hex()
        names[label] = min(names.get(label, name), name)
    return names


def _judged(
    inputs: AlignInputs, config: AlignConfig, split: SplitConfig
) -> Iterator[tuple[Entry, Row, np.ndarray | None]]:
    for entry, sight in _seen(inputs):
        row = Row(entry.name, inputs.source, entry.identity, entry.sha256, "accepted")
        if sight is None:
            reject(row, entry.reason)
            yield entry, row, None
            continue
        matrix = judge(row, sight, config, aligned=bool(entry.points))
        if matrix is not None:
            row.group = row.identity or row.pixels_sha256
            row.split = entry.split or split_of(row.group, split)
        yield entry, row, matrix


def _seen(inputs: AlignInputs) -> Iterator[tuple[Entry, Sight | None]]:
    """Each entry of the index with what it shows, None if the source refused it; only repeated files are held."""
    known: set[bytes] = set()
    repeated: set[str] = set()
    for entry in read_index(inputs.raw):
        key = bytes.fromhex(entry.sha256)[:16]
        if key in known and not entry.reason:
            repeated.add(entry.sha256)
        known.add(key)
    del known
    held: dict[str, Sight] = {}
    sights = read_sights(inputs.landmarks)
    for entry in read_index(inputs.raw):
        if entry.reason:
            yield entry, None
            continue
        sight = held.get(entry.sha256) or next(sights, None)
        if sight is None or sight.sha256 != entry.sha256:
            raise DataError(f"{inputs.landmarks}: is not of {inputs.raw} ({entry.name}); run `dvc repro landmarks`")
        if entry.sha256 in repeated:
            held[entry.sha256] = sight
        yield entry, sight


def _align_one(place: _Place, task: _Task) -> bytes:
    shard, offset, size, packed = task
    image = decode_again(read_photograph(place.raw, shard, offset, size), place.decode)
    face = warp(image, np.frombuffer(packed).reshape(2, 3), place.size)
    return json.dumps(measure(face)).encode() + b"\n" + face.tobytes()


def _crashed(task: _Task) -> bytes:
    return b""


def _finish(row: Row, packed: bytes, images: ImagesWriter, config: AlignConfig) -> None:
    if not packed:
        reject(row, "crashed")
        return
    end = packed.index(b"\n")
    row.brightness, row.contrast, row.aligned_sharpness, row.black_share = Look(*json.loads(packed[:end]))
    pixels = memoryview(packed)[end + 1 :]
    if row.contrast < config.min_contrast:
        reject(row, "flat")
    else:
        row.row, row.aligned_sha256 = images.append(pixels), hashlib.sha256(pixels).hexdigest()
