"""The `align` stage's work: every photograph ends accepted, with its aligned face, or rejected with a reason."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from lapcvae.data.cache import ContentCache, key_of
from lapcvae.data.decode import DecodeConfig, decode
from lapcvae.data.detector import Face
from lapcvae.data.executor import ExecutorConfig, run
from lapcvae.data.landmarks import Sight, point_array, read_sights
from lapcvae.data.manifest import ImagesWriter, ManifestWriter, Row
from lapcvae.data.photographs import Entry, read_index, read_photograph
from lapcvae.data.split import SplitConfig, split_of
from lapcvae.data.template import residual, rotation_deg, similarity
from lapcvae.data.warp import Look, border_share, measure, warp
from lapcvae.errors import DataError
from lapcvae.io.atomic import atomic_folder
from lapcvae.io.progress import progress

_TASK = 64  # photographs a task
_BATCH = 2048  # photographs looked up and written at a time
_FORMAT = "1"  # part of the cache key; raise it when the warp or the measures change


@dataclass(frozen=True)
class AlignConfig:
    """The `align` section of params.yaml: the size of the result and what is good enough."""

    size: int
    min_score: float
    min_eye_distance_px: float
    max_rotation_deg: float
    max_residual: float
    max_border_share: float
    min_contrast: float

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 1024:
            raise ValueError("size must be 8 to 1024 pixels")


@dataclass(frozen=True)
class _Task:
    raw: Path
    entries: tuple[Entry, ...]
    matrices: tuple[np.ndarray, ...]
    decode: DecodeConfig
    size: int


def choose(sight: Sight, config: AlignConfig) -> Face | None:
    """The face that a photograph is of: among those sure enough, and large enough if any is, the most central."""
    sure = [f for f in sight.faces if f.score >= config.min_score]
    large = [f for f in sure if eye_distance(f) >= config.min_eye_distance_px]
    middle = np.array([sight.width - 1, sight.height - 1]) / 2
    return min(large or sure, key=lambda f: (float(np.hypot(*(_centre(f) - middle))), -f.score), default=None)


def eye_distance(face: Face) -> float:
    """Pixels between the eyes in the source photograph."""
    points = point_array(face)
    return float(np.hypot(*(points[1] - points[0])))


def _centre(face: Face) -> np.ndarray:
    left, top, width, height = face.box
    return np.array([left + width / 2, top + height / 2])


def judge(row: Row, sight: Sight, config: AlignConfig) -> tuple[Row, np.ndarray | None]:
    """Fill in what is known before the warp; the second is the similarity to the template, None if rejected."""
    row = replace(
        row,
        pixels_sha256=sight.pixels_sha256,
        phash=sight.phash,
        width=sight.width,
        height=sight.height,
        sharpness=sight.sharpness,
        faces=len(sight.faces),
    )
    if sight.reason:
        return rejected(row, sight.reason), None
    face = choose(sight, config)
    if face is None:
        return rejected(row, "no_face"), None
    row = replace(row, score=face.score, eye_distance_px=round(eye_distance(face), 3))
    if row.eye_distance_px < config.min_eye_distance_px:
        return rejected(row, "small_face"), None
    points = point_array(face)
    try:
        matrix = similarity(points)
    except ValueError:
        return rejected(row, "poor_fit"), None
    row = replace(
        row,
        residual=round(residual(points, matrix), 5),
        rotation_deg=round(rotation_deg(matrix), 3),
        border_share=round(border_share(matrix, sight.width, sight.height, config.size), 4),
    )
    if abs(row.rotation_deg) > config.max_rotation_deg:
        return rejected(row, "turned"), None
    if row.residual > config.max_residual:
        return rejected(row, "poor_fit"), None
    if row.border_share > config.max_border_share:
        return rejected(row, "outside_frame"), None
    return row, matrix


def rejected(row: Row, reason: str) -> Row:
    """`row` as rejected for `reason`."""
    return replace(row, status="rejected", reason=reason, row=-1, split="", aligned_sha256="")


def _align_all(task: _Task) -> list[bytes]:
    return [
        _align_one(read_photograph(task.raw, e.shard, e.offset, e.bytes), m, task)
        for e, m in zip(task.entries, task.matrices, strict=True)
    ]


def _align_one(data: bytes, matrix: np.ndarray, task: _Task) -> bytes:
    image = decode(data, task.decode)
    face = warp(image, matrix, task.size)
    look = measure(face, border_share(matrix, image.shape[1], image.shape[0], task.size))
    return json.dumps(asdict(look)).encode() + b"\n" + face.tobytes()


def align(
    raw: Path,
    landmarks: Path,
    out: Path,
    cache: Path,
    source: str,
    config: AlignConfig,
    decode_config: DecodeConfig,
    split: SplitConfig,
    executor: ExecutorConfig,
) -> Counter[str]:
    """Write `out`/images.npy and `out`/manifest.csv (see `data.manifest`); returns rows by status or reason."""
    counts: Counter[str] = Counter()
    sights = {s.sha256: s for s in read_sights(landmarks)}
    version = f"{_FORMAT}|{decode_config}|{config.size}"
    entries = read_index(raw)
    with (
        ContentCache(cache) as kept,
        atomic_folder(out) as folder,
        ImagesWriter(folder / "images.npy", config.size) as images,
        ManifestWriter(folder / "manifest.csv") as manifest,
        progress(label="align", unit=" photographs") as bar,
    ):
        while batch := list(itertools.islice(entries, _BATCH)):
            judged = [_judged(e, sights, source, config) for e in batch]
            keys = {i: _key(version, batch[i], matrix) for i, (_, matrix) in enumerate(judged) if matrix is not None}
            known = kept.get(list(keys.values()))
            missing = [i for i in keys if keys[i] not in known]
            work = ((batch[i], judged[i][1], keys[i]) for i in missing)
            for group in _results(work, raw, decode_config, config.size, executor):
                kept.put(group.items())
                known |= group
            for i, (row, _) in enumerate(judged):
                done = _finish(row, known[keys[i]] if i in keys else None, images, split, config)
                manifest.write(done)
                counts[done.reason or done.status] += 1
            bar.update(len(batch))
    return counts


def _judged(entry: Entry, sights: dict[str, Sight], source: str, config: AlignConfig) -> tuple[Row, np.ndarray | None]:
    row = Row(entry.name, source, entry.identity, entry.sha256, "accepted")
    if entry.reason:
        return rejected(row, entry.reason), None
    if entry.sha256 not in sights:
        raise DataError(f"{entry.name}: has no row in the landmarks file; run `dvc repro landmarks` first")
    return judge(row, sights[entry.sha256], config)


def _key(version: str, entry: Entry, matrix: np.ndarray | None) -> bytes:
    assert matrix is not None
    return key_of(version, entry.sha256, matrix.tobytes().hex())


def _results(
    work: Iterable[tuple[Entry, np.ndarray | None, bytes]],
    raw: Path,
    decoding: DecodeConfig,
    size: int,
    executor: ExecutorConfig,
) -> Iterator[dict[bytes, bytes]]:
    keys: list[list[bytes]] = []

    def tasks() -> Iterator[_Task]:
        source = iter(work)
        while part := list(itertools.islice(source, _TASK)):
            keys.append([k for _, _, k in part])
            matrices = tuple(m for _, m, _ in part if m is not None)
            yield _Task(raw, tuple(e for e, _, _ in part), matrices, decoding, size)

    for i, aligned in enumerate(run(_align_all, tasks(), executor)):
        yield dict(zip(keys[i], aligned, strict=True))


def _finish(row: Row, packed: bytes | None, images: ImagesWriter, split: SplitConfig, config: AlignConfig) -> Row:
    if packed is None:
        return row
    head, pixels = packed.split(b"\n", 1)
    look = Look(**json.loads(head))
    row = replace(row, **asdict(look))
    if look.contrast < config.min_contrast:
        return rejected(row, "flat")
    group = row.identity or row.pixels_sha256
    digest = hashlib.sha256(pixels).hexdigest()
    return replace(row, row=images.append(pixels), group=group, split=split_of(group, split), aligned_sha256=digest)
