"""How fast the data stages are, beside what the bare libraries do on the same cores.

    python -m bench.data_speed detect   [--count 12000]   landmarks against the detector alone
    python -m bench.data_speed align    [--count 30000] [--side 250]   decode and align against OpenCV alone
    python -m bench.data_speed added    [--count 12000] [--source folder|archive] [--dvc]   100 more against 100
    python -m bench.data_speed memory   [--count 100000]  peak memory of each stage, all processes together

    --folder F   photographs and what is made of them stay there, and are used again by the next benchmark

Wall-clock shares mean something only on a machine that does nothing else; shares of processor time ("cpu") can be
compared on a busy one too. The bare work is done in a loop in one process, its photographs already in memory; a
stage's figures are of its whole command: start, reading, hashing, cache, manifest and the flushed outputs included.
"""

from __future__ import annotations

import argparse
import functools
import math
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench import results
from bench.data_growth import added
from bench.data_stage import anew, project, stage
from bench.photographs import SIDE, pack, variants
from lapcvae.config import load
from lapcvae.data.decode import DecodeConfig, decode
from lapcvae.data.detector import DetectorConfig, detect
from lapcvae.data.photographs import Entry, packed_folder, read_index, read_photograph
from lapcvae.data.sight import point_array, read_sights
from lapcvae.data.template import similarity, to_crop
from lapcvae.data.warp import cut

CORES = len(os.sched_getaffinity(0))
_PASSES = 5
_LOOKED_AT, _ALIGNED = 600, 1000  # photographs that the bare work is done on; each takes a detector another time


def packed(folder: Path, count: int, points: dict[str, str] | None = None, side: int = SIDE) -> Path:
    """A project of `count` packed photographs, those of an earlier benchmark if they are there; no cache is."""
    work = project(folder / f"{side}px-{count}{'' if points else '-unknown'}")
    if not (work / "data/raw/index.csv").is_file():
        pack(work / "data/raw", count, points, side)
    shutil.rmtree(work / ".cache", ignore_errors=True)
    return work


def rate(work: Callable[[int], Any], photographs: int) -> tuple[float, float]:
    """Photographs a second, by the wall clock and by processor time, of `work` in this process: medians of passes."""
    work(0)
    walls, cpus = [], []
    for _ in range(_PASSES):
        wall, cpu = time.perf_counter(), time.process_time()
        for i in range(photographs):
            work(i)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return photographs / statistics.median(walls), photographs / statistics.median(cpus)


def rate_together(work: Callable[[int], Any], photographs: int) -> float:
    """Photographs a second of `work` in a process a core, all at once.

    Cores that share a memory and execution units do less than their number times what one does alone.
    """
    context = multiprocessing.get_context("fork")
    gate, found = context.Barrier(CORES), context.SimpleQueue()

    def one() -> None:
        gate.wait()
        found.put(rate(work, photographs)[0])

    processes = [context.Process(target=one) for _ in range(CORES)]
    for process in processes:
        process.start()
    total = sum(found.get() for _ in processes)
    for process in processes:
        process.join()
    return float(total)


def compared(
    bare: Callable[[int], Any], photographs: int, count: int, run: Callable[[], dict[str, float]], turns: int
) -> dict[str, Any]:
    """The rate of a stage beside that of `bare` work: `CORES` times one process, and a process a core.

    All are measured `turns` times in turn; medians, of the shares as well.
    """
    found: list[dict[str, float]] = []
    for _ in range(turns):
        (one, one_cpu), together, used = rate(bare, photographs), rate_together(bare, photographs), run()
        found.append(
            {
                "bare_per_s_one_process": one,
                "bare_per_s_all_cores": together,
                "stage_per_s": count / used["seconds"],
                "share_wall": count / used["seconds"] / (CORES * one),
                "share_of_all_cores": count / used["seconds"] / together,
                "share_cpu": count / used["cpu_s"] / one_cpu,
            }
        )
    medians = {key: float(f"{statistics.median(turn[key] for turn in found):.4g}") for key in found[0]}
    return {"photographs": count, "cores": CORES, "turns": turns, **medians}


def detect_speed(count: int, folder: Path) -> dict[str, Any]:
    """The landmarks stage against one process that does nothing but look for faces in decoded photographs."""
    cv2.setNumThreads(1)
    work = packed(folder, count)
    decoding, detector = load(DecodeConfig, "decode"), load(DetectorConfig, "detector")
    images = [decode(data, decoding) for _, data in some(work, _LOOKED_AT)]
    return compared(lambda i: detect(images[i], detector), len(images), count, lambda: anew(work, "landmarks"), 3)


def align_speed(count: int, folder: Path, side: int) -> dict[str, Any]:
    """The align stage against one process that decodes and warps with OpenCV alone, to the same faces."""
    cv2.setNumThreads(1)
    work = packed(folder, count, known_points(folder), side)
    if not (work / "data/landmarks/landmarks.csv").is_file():
        stage(work, "landmarks")
    chosen = [(five_points(entry), data) for entry, data in some(work, _ALIGNED) if entry.points]
    photographs = [(data, to_crop(similarity(points), 64)) for points, data in chosen]

    def bare(i: int) -> np.ndarray:
        data, crop = photographs[i]
        image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        samples = max(1, math.ceil(1 / math.hypot(*crop[:, 0]) - 0.35))  # a side of a pixel, so that nothing aliases
        fine = samples * crop
        fine[:, 2] += (samples - 1) / 2
        whole = (samples * 64, samples * 64)
        sampled = cv2.warpAffine(image, fine, whole, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        return sampled if samples == 1 else cv2.resize(sampled, (64, 64), interpolation=cv2.INTER_AREA)

    def ours(i: int) -> np.ndarray:
        return cut(*photographs[i], 64, decoding)

    decoding = load(DecodeConfig, "decode")
    found = compared(bare, len(photographs), count, lambda: anew(work, "align"), 5)
    return {"side_px": side, **found, "cut_per_s_one_process": round(rate(ours, len(photographs))[0])}


def some(work: Path, most: int) -> list[tuple[Entry, bytes]]:
    """Photographs of a project, drawn at random: the people recur, so that at even steps there are few of them."""
    entries = list(read_index(work / "data/raw"))
    chosen = np.random.default_rng(0).choice(len(entries), min(most, len(entries)), replace=False)
    raw = packed_folder(work / "data/raw")
    return [(e, read_photograph(raw, e.shard, e.offset, e.bytes)) for e in (entries[i] for i in sorted(chosen))]


def five_points(entry: Entry) -> np.ndarray:
    """The points that an entry of the index gives, (5, 2)."""
    return np.array(entry.points.split(), dtype=float).reshape(5, 2)


def known_points(folder: Path) -> dict[str, str]:
    """The five points of each of the sample's people, found once."""
    work = packed(folder, 1000)
    if not (work / "data/landmarks/landmarks.csv").is_file():
        stage(work, "landmarks")
    sights = read_sights(work / "data/landmarks/landmarks.csv")
    people = [person for _, person, _ in variants(1000)]
    found = {}
    for person, sight in zip(people, sights, strict=True):
        if sight.faces:
            found[person] = " ".join(str(v) for v in point_array(sight.faces[0]).ravel())
    return found


def memory(count: int, folder: Path) -> dict[str, Any]:
    """Peak memory of each stage at 1,000 photographs, at 10,000, which fill all that is held of some at a time, and at
    `count`; their points are given to save hours of looking.
    """
    points = known_points(folder)
    found: dict[str, Any] = {}
    for n in (1000, 10_000, count):
        work = packed(folder, n, points)
        used = {s: stage(work, s) for s in ("landmarks", "align", "validate", "pyramid")}
        found[str(n)] = used
    return found


def stages_table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """A row a case and stage."""
    rows = [(case, name, used) for case, stages in found.items() for name, used in stages.items()]
    return results.table(
        ["photographs", "stage", "seconds", "processor seconds", "peak MB"],
        [[case, name, used["seconds"], used["cpu_s"], used.get("peak_mb", "")] for case, name, used in rows],
    )


def main() -> None:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["detect", "align", "added", "memory"])
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--side", type=int, default=SIDE, help="pixels of the photographs, for align; up to 750")
    parser.add_argument("--source", choices=["folder", "archive"], default="folder", help="of the many, for added")
    parser.add_argument("--dvc", action="store_true", help="the whole of `dvc repro pyramid`, for added")
    parser.add_argument("--folder", type=Path, help="keep the photographs here")
    chosen = parser.parse_args()
    works: dict[str, tuple[Callable[[int, Path], dict[str, Any]], int]] = {
        "detect": (detect_speed, 12_000),
        "align": (functools.partial(align_speed, side=chosen.side), 30_000),
        "added": (functools.partial(added, kind=chosen.source, dvc=chosen.dvc), 12_000),
        "memory": (memory, 100_000),
    }
    work, default = works[chosen.what]
    count = chosen.count or default
    with tempfile.TemporaryDirectory() as scratch:
        found = work(count, chosen.folder or Path(scratch))
    table = stages_table(found) if chosen.what in ("added", "memory") else results.table(["what", "found"], rows(found))
    of = {"align": f"-{chosen.side}px", "added": f"-{chosen.source}" + "-dvc" * chosen.dvc}.get(chosen.what, "")
    results.keep(f"data-{chosen.what}{of}", [f"{count:,} photographs", table])


def rows(found: dict[str, Any]) -> list[list[object]]:
    """One figure a row."""
    return [[key, value] for key, value in found.items()]


if __name__ == "__main__":
    main()
