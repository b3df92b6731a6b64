"""A data set in a few figures: what the account adds up to, how the splits are balanced, where the measures lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from lapcvae.data.manifest import TYPES
from lapcvae.data.reasons import NOT_COUNTED, REASONS
from lapcvae.data.split import SPLITS, SplitConfig
from lapcvae.errors import DataError
from lapcvae.io.atomic import read_json, write_json

MEASURES = ("brightness", "contrast", "sharpness", "aligned_sharpness", "residual", "eye_distance_px", "black_share")
_COMPARED = tuple(m for m in MEASURES if m != "aligned_sharpness")  # which changes with `align.size_px`
_ROWS = 1 << 16  # of the manifest, read at a time
_LEFT_OUT = ("identity", "aligned_sha256", "phash")  # long, and nothing is asked of them
_CODED = ("group", "near", "pixels_sha256")
_FEW = ("source", "status", "reason", "split")
SCHEMA = {name: kind for name, kind in TYPES.items() if name not in (*_LEFT_OUT, *_CODED, "sha256")} | {
    **dict.fromkeys(_CODED, int),
    "sha256_whole": bool,
}
"""Columns of `read_table` and the type of their values."""
_KEPT = ("source", "accepted", "median", "spread")  # of a summary, for comparing later data sets with it


def read_table(path: Path) -> pd.DataFrame:
    """The manifest as a table of under 200 bytes a photograph.

    Raises `DataError` where there is no such file, or its columns are not the manifest's in name or type.

    What only has to be told apart (`group`, `near`, `pixels_sha256`) is a 64-bit hash, 0 for none; words of which there
    are few are categories; of the file's digest it is only said whether it is whole (`sha256_whole`).
    """
    if not path.is_file():
        raise DataError(f"{path}: not found; run `dvc repro align` first")
    text = [name for name, kind in TYPES.items() if kind is str]
    wanted = [name for name in TYPES if name not in _LEFT_OUT]
    kinds = {name: "str" if name in text else TYPES[name] for name in wanted}
    try:
        with pd.read_csv(path, keep_default_na=False, dtype=kinds, usecols=wanted, chunksize=_ROWS) as chunks:
            parts = [_compact(chunk) for chunk in chunks]
    except ValueError as error:
        raise DataError(f"{path}: not a manifest of this version ({error}); run `dvc repro --force align`") from None
    table = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
    return table.assign(**{name: pd.Categorical.from_codes(*_union(parts, name)) for name in _FEW})


def _compact(chunk: pd.DataFrame) -> pd.DataFrame:
    codes = {}
    for name in _CODED:
        values = chunk[name].to_numpy(dtype=object)
        codes[name] = np.where(values == "", 0, pd.util.hash_array(values, categorize=False)).view(np.int64)
    few = {name: chunk[name].astype("category") for name in _FEW}
    whole = chunk.sha256.str.fullmatch("[0-9a-f]{64}").astype(bool)
    return chunk.drop(columns="sha256").assign(**codes, **few, sha256_whole=whole)


def _union(parts: list[pd.DataFrame], name: str) -> tuple[np.ndarray, pd.Index]:
    joined = union_categoricals([part[name] for part in parts], sort_categories=True)
    return np.asarray(joined.codes), joined.categories


def summarise(table: pd.DataFrame, split: SplitConfig, reference: dict[str, Any] | None = None) -> dict[str, Any]:
    """Counts, reasons, splits and where the measures lie; equal manifests give equal values.

    `reference` is the last accepted data set (see `read_reference`), None if there is none to compare with.
    """
    accepted = table[table.status == "accepted"]
    counts = accepted.split.value_counts()
    summary: dict[str, Any] = {
        "source": ", ".join(sorted(table.source.unique())),
        "photographs": len(table),
        "accepted": len(accepted),
        "rejected": {str(k): int(v) for k, v in table[table.status == "rejected"].reason.value_counts().items() if v},
        "groups": int(accepted.group.nunique()),
        "splits": {s: int(counts.get(s, 0)) for s in SPLITS},
        "median": {m: _figure(accepted[m].median()) for m in MEASURES},
        "spread": {m: _figure(accepted[m].std(ddof=0)) for m in MEASURES},
    }
    summary["totals"] = {**_totals(table, split), **_changes(summary, reference)}
    return summary


def _figure(value: float) -> float:
    return round(float(value), 4) if value == value else 0.0  # an empty column has no median


def _totals(table: pd.DataFrame, split: SplitConfig) -> dict[str, float]:
    """The figures that `validate.totals` limits.

    `accepted`: photographs; `unaccounted`: rows neither accepted nor rejected with a reason; `reject_share`: of the
    rows that speak of a photograph, 0 to 1; `split_error`: the largest difference of a split's share from the one asked
    for, 0 to 1; `share_` and a reason: photographs rejected for it, of the same rows.
    """
    accepted = table[table.status == "accepted"]
    accounted = len(accepted) + int(((table.status == "rejected") & (table.reason != "")).sum())
    counted = table[~table.reason.isin(NOT_COUNTED)]
    wanted = {"val": split.val_share, "test": split.test_share, "train": 1 - split.val_share - split.test_share}
    shares = accepted.split.value_counts(normalize=True)
    reasons = counted.reason.value_counts()
    rejected = {f"share_{r}": round(float(reasons.get(r, 0)) / max(len(counted), 1), 6) for r in REASONS}
    return {
        "accepted": float(len(accepted)),
        "unaccounted": float(len(table) - accounted),
        "reject_share": round(float((counted.status != "accepted").mean()) if len(counted) else 1.0, 6),
        **rejected,
        "split_error": round(max(abs(float(shares.get(s, 0.0)) - wanted[s]) for s in SPLITS), 6),
    }


def _changes(summary: dict[str, Any], reference: dict[str, Any] | None) -> dict[str, float]:
    """Against the last accepted data set of the same source; 0 where there is none.

    `median_change`: the largest move of a measure's median, in standard deviations of the reference; `share_lost`: of
    its accepted photographs, how many fewer there are now, 0 to 1.
    """
    if reference is None or reference["source"] != summary["source"]:
        return {"median_change": 0.0, "share_lost": 0.0}
    moves = [abs(summary["median"][m] - reference["median"][m]) / max(reference["spread"][m], 1e-6) for m in _COMPARED]
    lost = 1 - summary["accepted"] / max(reference["accepted"], 1)
    return {"median_change": round(max(moves), 6), "share_lost": round(max(0.0, lost), 6)}


def read_reference(path: Path) -> dict[str, Any] | None:
    """The last accepted data set's figures, None if none ever was. Raises `DataError` if they are not whole."""
    if not path.is_file():
        return None
    try:
        reference: dict[str, Any] = read_json(path)
        complete = all(key in reference for key in _KEPT) and all(
            isinstance(reference[part][m], int | float) for part in ("median", "spread") for m in MEASURES
        )
    except (ValueError, KeyError, TypeError):
        complete = False
    if not complete:
        raise DataError(f"{path}: not the figures of a data set; write it anew with `lapcvae accept-data`")
    return reference


def accept(report: Path, reference: Path) -> str:
    """Make the data set of a validation report the one that later ones are compared with; returns its source.

    Raises `DataError` if there is no report, which is so unless every expectation held.
    """
    if not report.is_file():
        raise DataError(f"{report}: not found; only a data set that passes `dvc repro validate` can be accepted")
    summary = read_json(report)["summary"]
    write_json(reference, {key: summary[key] for key in _KEPT})
    return str(summary["source"])
