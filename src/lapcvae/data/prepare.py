"""Any folder or archive to aligned faces in one go, outside the pipeline: the same work as its first three stages."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lapcvae.config import load
from lapcvae.data.account import account, write_page
from lapcvae.data.align import AlignInputs, align
from lapcvae.data.collect import collect
from lapcvae.data.decode import DecodeConfig
from lapcvae.data.detector import DetectorConfig
from lapcvae.data.duplicates import DuplicatesConfig
from lapcvae.data.executor import ExecutorConfig
from lapcvae.data.judge import AlignConfig
from lapcvae.data.landmarks import find_landmarks
from lapcvae.data.sources import SourceConfig
from lapcvae.data.split import SplitConfig
from lapcvae.errors import SourceError, StorageError
from lapcvae.io.atomic import write_json

_MARK, _ORIGINALS = "account.json", ".originals"


def prepare(
    source: Path,
    out: Path,
    params: Path,
    identity: Literal["folder", "none"] = "folder",
    size_px: int | None = None,
) -> dict[str, Any]:
    """Take every photograph of a folder or archive; returns the account (see `data.account.account`).

    Writes to the folder `out`: landmarks.csv, aligned/ (images.npy, manifest.csv), account.json and account.html;
    .cache/ there makes a second run cheap. The originals, with all that is written in them (places, names, dates), are
    packed in .originals/ while it works and nowhere afterwards. Settings come from the file `params`; with
    `identity` "folder" the folder that a photograph lies in names the person, with "none" people are not known.
    size_px: a side of the faces where it is not to be that of `params`.
    Raises `SourceError` for a source that is missing or unsafe, `StorageError` if `out` holds something else.
    """
    _check_places(source, out)
    kind: Literal["folder", "archive"] = "folder" if source.is_dir() else "archive"
    config = replace(load(SourceConfig, "source", params), kind=kind, path=str(source), sha256="", identity=identity)
    decoding = load(DecodeConfig, "decode", params)
    executor = load(ExecutorConfig, "executor", params)
    aligning = load(AlignConfig, "align", params)
    aligning = aligning if size_px is None else replace(aligning, size_px=size_px)
    raw, cache = out / _ORIGINALS, out / ".cache"
    landmarks, manifest = out / "landmarks.csv", out / "aligned" / "manifest.csv"
    collect(config, raw)
    (out / _MARK).unlink(missing_ok=True)  # from here on what lies in `out` is not whole
    find_landmarks(
        raw, landmarks, cache / "sights.sqlite", decoding, load(DetectorConfig, "detector", params), executor
    )
    align(
        AlignInputs(raw, landmarks, kind),
        out / "aligned",
        cache,
        aligning,
        decoding,
        load(SplitConfig, "split", params),
        load(DuplicatesConfig, "duplicates", params),
        executor,
    )
    counts = account(manifest)
    write_page(manifest, raw, out / "account.html", decoding)
    write_json(out / _MARK, counts)
    shutil.rmtree(raw)
    return counts


def _check_places(source: Path, out: Path) -> None:
    if not source.exists():
        raise SourceError(f"{source}: no such folder or archive")
    inside, outside = source.resolve(), out.resolve()
    if inside == outside or inside in outside.parents or outside in inside.parents:
        raise StorageError(f"{out}: must lie outside {source}, or the photographs and what is made of them would mix")
    ours = (out / _MARK).is_file() or (out / _ORIGINALS / "index.csv").is_file()
    if out.exists() and not (out.is_dir() and (ours or not any(out.iterdir()))):
        raise StorageError(f"{out}: holds something else already; name a new folder")
