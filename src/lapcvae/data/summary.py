"""A data set in a few figures: what the account adds up to, how the splits are balanced, where the measures lie."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lapcvae.data.manifest_table import PHOTOGRAPHS, ManifestTable
from lapcvae.data.reasons import NOT_COUNTED, REASONS
from lapcvae.data.split import SPLITS, SplitConfig
from lapcvae.errors import DataError
from lapcvae.io.atomic import read_json, write_json

MEASURES = ("brightness", "contrast", "sharpness", "aligned_sharpness", "residual", "eye_distance_px", "black_share")
_COMPARED = tuple(m for m in MEASURES if m != "aligned_sharpness")  # which changes with `align.size_px`
_KEPT = ("source", "accepted", "median", "spread")  # of a summary, for comparing later data sets with it


class _Outcome(NamedTuple):
    """How many photographs ended in one way."""

    status: str
    reason: str
    split: str
    photographs: int


def summarise(table: ManifestTable, split: SplitConfig, reference: dict[str, Any] | None = None) -> dict[str, Any]:
    """Counts, reasons, splits and where the measures lie; equal manifests give equal values.

    `reference` is the last accepted data set (see `read_reference`), None if there is none to compare with.
    """
    columns = "status, reason, split"
    found = table.ask(f"SELECT {columns}, count(*) FROM {PHOTOGRAPHS} GROUP BY {columns} ORDER BY {columns}")
    outcomes = [_Outcome(*row) for row in found]
    accepted = [o for o in outcomes if o.status == "accepted"]
    rejected = [o for o in outcomes if o.status == "rejected"]
    ((groups,),) = table.ask(f"SELECT count(DISTINCT \"group\") FROM {PHOTOGRAPHS} WHERE status = 'accepted'")
    measured = {m: _median_and_spread(table, m) for m in MEASURES}
    summary: dict[str, Any] = {
        "source": ", ".join(source for (source,) in table.ask(f"SELECT DISTINCT source FROM {PHOTOGRAPHS} ORDER BY 1")),
        "photographs": _total(outcomes),
        "accepted": _total(accepted),
        "rejected": {
            reason: _total(o for o in rejected if o.reason == reason) for reason in sorted({o.reason for o in rejected})
        },
        "groups": groups,
        "splits": {s: _total(o for o in accepted if o.split == s) for s in SPLITS},
        "median": {m: median for m, (median, _) in measured.items()},
        "spread": {m: spread for m, (_, spread) in measured.items()},
    }
    summary["totals"] = {**_totals(outcomes, summary, split), **_changes(summary, reference)}
    return summary


def _total(outcomes: Iterable[_Outcome]) -> int:
    return sum(outcome.photographs for outcome in outcomes)


def _median_and_spread(table: ManifestTable, measure: str) -> tuple[float, float]:
    """Of the accepted photographs; 0 where there are none."""
    rows = table.ask(f"SELECT {measure} FROM {PHOTOGRAPHS} WHERE status = 'accepted'")
    values = np.fromiter((value for (value,) in rows), np.float64)
    return (round(float(np.median(values)), 4), round(float(values.std()), 4)) if len(values) else (0.0, 0.0)


def _totals(outcomes: list[_Outcome], summary: dict[str, Any], split: SplitConfig) -> dict[str, float]:
    """The figures that `validate.totals` limits.

    `accepted`: photographs; `unaccounted`: rows neither accepted nor rejected with a reason; `reject_share`: of the
    rows that speak of a photograph, 0 to 1; `split_error`: the largest difference of a split's share from the one asked
    for, 0 to 1; `share_` and a reason: photographs rejected for it, of the same rows.
    """
    accepted = summary["accepted"]
    accounted = accepted + _total(o for o in outcomes if o.status == "rejected" and o.reason)
    counted = [o for o in outcomes if o.reason not in NOT_COUNTED]
    all_counted = max(_total(counted), 1)
    wanted = {"val": split.val_share, "test": split.test_share, "train": 1 - split.val_share - split.test_share}
    shares = {s: summary["splits"][s] / max(accepted, 1) for s in SPLITS}
    rejected = {f"share_{r}": round(_total(o for o in counted if o.reason == r) / all_counted, 6) for r in REASONS}
    return {
        "accepted": float(accepted),
        "unaccounted": float(summary["photographs"] - accounted),
        "reject_share": round(_total(o for o in counted if o.status != "accepted") / all_counted, 6)
        if counted
        else 1.0,
        **rejected,
        "split_error": round(max(abs(shares[s] - wanted[s]) for s in SPLITS), 6),
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
