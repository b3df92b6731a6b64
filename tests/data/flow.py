"""The data stages' work on one folder, in this process unless told otherwise."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from lapcvae.config import load
from lapcvae.data.align import AlignInputs, align
from lapcvae.data.collect import collect
from lapcvae.data.decode import DecodeConfig
from lapcvae.data.detector import DetectorConfig
from lapcvae.data.duplicates import DuplicatesConfig
from lapcvae.data.executor import ExecutorConfig
from lapcvae.data.judge import AlignConfig
from lapcvae.data.landmarks import find_landmarks
from lapcvae.data.manifest import Row, read_manifest
from lapcvae.data.sources import SourceConfig
from lapcvae.data.split import SplitConfig
from lapcvae.io.atomic import sha256_file

PARAMS = Path(__file__).parents[2] / "params.yaml"
HERE = ExecutorConfig("processes", 1)


def source_of(path: Path, **changes: object) -> SourceConfig:
    """The project's own settings for a folder or archive at `path`."""
    kind = "folder" if path.is_dir() else "archive"
    return replace(load(SourceConfig, "source", PARAMS), **({"kind": kind, "path": str(path)} | changes))  # type: ignore[arg-type]


def look_and_align(raw: Path, work: Path, executor: ExecutorConfig = HERE, size: int = 64) -> Counter[str]:
    """landmarks and align of a packed folder: `work`/landmarks.csv and `work`/aligned, caches in `work`/cache."""
    decoding = load(DecodeConfig, "decode", PARAMS)
    find_landmarks(
        raw,
        work / "landmarks.csv",
        work / "cache" / "sights.sqlite",
        decoding,
        load(DetectorConfig, "detector", PARAMS),
        executor,
    )
    return align(
        AlignInputs(raw, work / "landmarks.csv", "test"),
        work / "aligned",
        work / "cache",
        replace(load(AlignConfig, "align", PARAMS), size_px=size),
        decoding,
        load(SplitConfig, "split", PARAMS),
        load(DuplicatesConfig, "duplicates", PARAMS),
        executor,
    )


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a folder."""
    return {path.name: sha256_file(path) for path in folder.iterdir()}


def is_as_afresh(raw: Path, config: SourceConfig, taken: Path | None = None) -> bool:
    """Whether `raw` is what comes of a source where nothing is known of it."""
    with tempfile.TemporaryDirectory() as folder:
        collect(config, Path(folder, "raw"), taken)
        return digests(raw) == digests(Path(folder, "raw"))


def whole(source: Path, work: Path, **changes: object) -> list[Row]:
    """download, landmarks and align of a folder or archive; returns the manifest."""
    collect(source_of(source, **changes), work / "raw")
    look_and_align(work / "raw", work)
    return list(read_manifest(work / "aligned" / "manifest.csv"))
