"""The `landmarks` stage's work: what each photograph shows, worked out once by content and kept."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import imagehash
import numpy as np
import scipy.fftpack  # noqa: F401 - imagehash imports it at its first hash, which would be once a worker
from PIL import Image

from lapcvae.data.ahead import batched, one_ahead
from lapcvae.data.decode import DecodeConfig, Unreadable, decode
from lapcvae.data.detector import DetectorConfig, detect
from lapcvae.data.executor import ExecutorConfig, open_executor
from lapcvae.data.photographs import Entry, PackedFolder, packed_folder, read_index, read_photograph
from lapcvae.data.sight import HEADER, Face, Sight, line_of
from lapcvae.errors import ConfigError
from lapcvae.io.atomic import atomic_path
from lapcvae.io.cache import ContentCache, key_of
from lapcvae.io.progress import progress

_HASH_SIDE = 16
_CHUNK = 16  # photographs a task: small enough to keep all cores busy to the end
_KEPT = 64  # results put into the cache at a time
_BATCH = 512  # photographs looked up and written at a time, at most
_ENOUGH = 10  # photographs shown to the detector: where it has failed on all of so many, the fault is its own
_FORMAT = "5"  # part of the cache key; raise it when `Sight` or how it is made changes

_FAILED = "detector_failed"
# What a broken package or full memory may be the cause of is looked at again the next time.
_ACCIDENTS = frozenset({"crashed", _FAILED})


@dataclass(frozen=True)
class _Task:
    raw: PackedFolder
    entry: Entry
    decode: DecodeConfig
    detector: DetectorConfig


@dataclass(frozen=True)
class _Batch:
    """Photographs that are known or being looked at: each with its key, and the sights to come of the `missing`."""

    keyed: list[tuple[Entry, bytes]]
    known: dict[bytes, bytes]
    missing: list[bytes]
    coming: Iterator[Sight]


def look(data: bytes, sha256: str, decode_config: DecodeConfig, detector: DetectorConfig, points: str = "") -> Sight:
    """Decode one photograph and find its faces; never raises for what is wrong with the photograph.

    With `points` (ten numbers, from the makers of the data set) no face is looked for: there is one, with those.
    """
    try:
        image = decode(data, decode_config)
    except Unreadable as unreadable:
        return Sight(sha256, unreadable.reason)
    try:
        faces = _faces(image, detector, points)
    except Exception:  # the detector's own slips on odd pictures concern that picture only
        return Sight(sha256, _FAILED)
    height, width = image.shape[:2]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    _, edges = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))
    pixels = hashlib.sha256(f"{width}x{height}:".encode())
    pixels.update(image.data)
    return Sight(
        sha256, "", width, height, round(float(edges[0, 0]) ** 2, 3), pixels.hexdigest(), _perceptual_hash(grey), faces
    )


def _faces(image: np.ndarray, detector: DetectorConfig, points: str) -> tuple[Face, ...]:
    return (_given(points),) if points else tuple(detect(image, detector))


def _perceptual_hash(grey: np.ndarray) -> str:
    """Hex digits of a 16 x 16 hash; the library gets the image in the size that it would reduce it to, more slowly."""
    side = 4 * _HASH_SIDE
    small = Image.fromarray(cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA))
    return np.packbits(imagehash.phash(small, hash_size=_HASH_SIDE).hash).tobytes().hex()


def _look_at(task: _Task) -> Sight:
    return look(_read(task), task.entry.sha256, task.decode, task.detector, task.entry.points)


def _read(task: _Task) -> bytes:
    return read_photograph(task.raw, task.entry.shard, task.entry.offset, task.entry.bytes)


def _given(points: str) -> Face:
    values = np.array([float(value) for value in points.split()])
    x, y = values[0::2], values[1::2]
    box = (float(x.min()), float(y.min()), float(np.ptp(x)), float(np.ptp(y)))
    return Face(1.0, box, tuple(values.tolist()))


def _crashed(task: _Task) -> Sight:
    return Sight(task.entry.sha256, "crashed")


def _broken(task: _Task) -> ConfigError:
    """With the detector's own words about one of the photographs, on all of which it has failed."""
    try:
        _faces(decode(_read(task), task.decode), task.detector, task.entry.points)
        said = "not in this process, only in the workers"
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    return ConfigError(
        f"the face detector raised an error on every photograph it was shown, on {task.entry.name} this one: {said}. "
        "An installed package may not fit: install the versions that constraints.txt pins (`make setup`), then run the "
        "same command again"
    )


def find_landmarks(
    raw: Path, out: Path, cache: Path, decode_config: DecodeConfig, detector: DetectorConfig, executor: ExecutorConfig
) -> tuple[int, int]:
    """Write `out` (see `data.sight`), a row for every photograph in `raw`; returns how many, how many looked at now.

    Raises `ConfigError` where the detector fails on all it is shown, and there are enough of them to say so.
    """
    version = f"{_FORMAT}|{decode_config}|{detector.version}"
    counts: Counter[str] = Counter()
    under_way: set[bytes] = set()
    unkept: dict[bytes, bytes] = {}
    packed = packed_folder(raw)
    with (
        ContentCache(cache) as kept,
        atomic_path(out) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as stream,
        open_executor(executor) as workers,
        progress(label="landmarks", unit=" photographs") as bar,
    ):
        stream.write(HEADER)

        def begin(batch: list[Entry]) -> _Batch:
            keyed = [(e, key_of(version, e.sha256, e.points)) for e in batch]
            entries = {key: e for e, key in keyed}
            known = kept.get(list(entries))
            missing = [key for key in entries if key not in known and key not in under_way]
            under_way.update(missing)
            counts.update(total=len(batch), new=len(missing))
            tasks = [_Task(packed, entries[key], decode_config, detector) for key in missing]
            return _Batch(keyed, known, missing, workers.run(_look_at, tasks, _CHUNK, _crashed))

        def finish(batch: _Batch) -> None:
            known = batch.known
            for keys in batched(batch.missing, _KEPT):
                some = list(zip(keys, itertools.islice(batch.coming, len(keys)), strict=True))
                fresh = {key: line_of(sight).encode() for key, sight in some}
                accidents = {key for key, sight in some if sight.reason in _ACCIDENTS}
                failed = [key for key, sight in some if sight.reason == _FAILED]
                counts.update(failed=len(failed), shown=len(failed) + sum(not sight.reason for _, sight in some))
                if counts["failed"] == counts["shown"] >= _ENOUGH:
                    entry = next(entry for entry, key in batch.keyed if key == failed[0])
                    raise _broken(_Task(packed, entry, decode_config, detector))
                # Soon, so that an interrupted run keeps what it has seen.
                kept.put((key, line) for key, line in fresh.items() if key not in accidents)
                unkept.update((key, fresh[key]) for key in accidents)
                known |= fresh
                bar.update(len(some))
            under_way.difference_update(batch.missing)
            # The same file again was under way in the batch before, and is known by now.
            known |= kept.get([key for _, key in batch.keyed if key not in known])
            for _, key in batch.keyed:
                stream.write((known[key] if key in known else unkept[key]).decode())
            bar.update(len(batch.keyed) - len(batch.missing))

        # Small enough for the workers to have a whole batch in hand while the one before is written.
        some = min(_BATCH, workers.ahead(_CHUNK))
        one_ahead(batched((e for e in read_index(raw) if not e.reason), some), begin, finish)
    return counts["total"], counts["new"]
