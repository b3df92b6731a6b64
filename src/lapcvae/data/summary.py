"""A data set in a few figures: what the account adds up to, how the splits are balanced, where the measures lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from lapcvae.data.reasons import NOT_COUNTED
from lapcvae.data.split import SPLITS, SplitConfig
from lapcvae.errors import DataError

MEASURES = ("brightness", "contrast", "sharpness", "aligned_sharpness", "residual", "eye_distance_px", "black_share")


def read_table(path: Path) -> pd.DataFrame:
    """The manifest as a table. Raises `DataError` where there is no such file."""
    if not path.is_file():
        raise DataError(f"{path}: not found; run `dvc repro align` first")
    text = ("name", "source", "identity", "sha256", "status", "reason", "split", "group", "phash", "pixels_sha256")
    return pd.read_csv(path, keep_default_na=False, dtype=dict.fromkeys((*text, "aligned_sha256"), "str"))


def summarise(table: pd.DataFrame, split: SplitConfig) -> dict[str, Any]:
    """Counts, reasons, splits and the medians of the measures; equal manifests give equal values."""
    accepted = table[table.status == "accepted"]
    counts = accepted.split.value_counts()
    return {
        "photographs": len(table),
        "accepted": len(accepted),
        "rejected": {str(k): int(v) for k, v in table[table.status == "rejected"].reason.value_counts().items()},
        "groups": int(accepted.group.nunique()),
        "splits": {s: int(counts.get(s, 0)) for s in SPLITS},
        "median": {m: round(float(accepted[m].median()), 4) if len(accepted) else 0.0 for m in MEASURES},
        "totals": totals(table, split),
    }


def totals(table: pd.DataFrame, split: SplitConfig) -> dict[str, float]:
    """The figures that `validate.totals` limits.

    `accepted`: photographs; `unaccounted`: rows neither accepted nor rejected with a reason; `reject_share`: of the
    rows that speak of a photograph, 0 to 1; `split_error`: the largest difference of a
    split's share from the one asked for.
    """
    accepted = table[table.status == "accepted"]
    accounted = len(accepted) + int(((table.status == "rejected") & (table.reason != "")).sum())
    counted = table[~table.reason.isin(NOT_COUNTED)]
    wanted = {"val": split.val_share, "test": split.test_share, "train": 1 - split.val_share - split.test_share}
    shares = accepted.split.value_counts(normalize=True)
    return {
        "accepted": float(len(accepted)),
        "unaccounted": float(len(table) - accounted),
        "reject_share": round(float((counted.status != "accepted").mean()) if len(counted) else 1.0, 6),
        "split_error": round(max(abs(float(shares.get(s, 0.0)) - wanted[s]) for s in SPLITS), 6),
    }
