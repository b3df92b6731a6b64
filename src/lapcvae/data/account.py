"""What became of every photograph of a source: totals that add up, and a page that shows the rejected ones."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import cv2
from PIL import Image

from lapcvae.data.decode import DecodeConfig, Unreadable, decode
from lapcvae.data.manifest import read_texts
from lapcvae.data.photographs import Entry, PackedFolder, entries_of, packed_folder, read_lines, read_photograph
from lapcvae.data.reasons import REASONS
from lapcvae.data.split import SPLITS
from lapcvae.errors import DataError
from lapcvae.io.atomic import write_text

_SHOWN = 24  # rejected photographs a reason
_THUMBNAIL_PX = 112

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td, th { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums }
figure { display: inline-block; width: 120px; margin: .3rem; vertical-align: top }
img { max-width: 112px; max-height: 112px; display: block } figcaption { font-size: 11px; word-break: break-all }
"""


def account(manifest: Path) -> dict[str, Any]:
    """Counts of a manifest: `photographs`, `accepted`, `splits`, `rejected` by reason.

    Every row is one entry of the source, so accepted and rejected add up to all of them; raises `DataError` if not.
    """
    return _counts(Counter(read_texts(manifest, "status", "split", "reason")), manifest)


def _counts(outcomes: Counter[tuple[str, ...]], manifest: Path) -> dict[str, Any]:
    splits, reasons = Counter[str](), Counter[str]()
    for (status, split, reason), count in outcomes.items():
        if status == "accepted":
            splits[split] += count
        else:
            reasons[reason] += count
    if not (splits.keys() <= set(SPLITS) and reasons.keys() <= REASONS.keys()):
        raise DataError(f"{manifest}: its rows do not add up; run `dvc repro --force align`")
    return {
        "photographs": outcomes.total(),
        "accepted": splits.total(),
        "splits": {split: splits[split] for split in SPLITS},
        "rejected": dict(sorted(reasons.items())),
    }


def as_text(counts: dict[str, Any]) -> str:
    """The account as a few lines for a terminal."""
    rejected = counts["rejected"]
    lines = [f"{counts['photographs']:>9,}  photographs", f"{counts['accepted']:>9,}  accepted"]
    lines += [f"{n:>9,}    {split}" for split, n in counts["splits"].items()]
    lines += [f"{sum(rejected.values()):>9,}  rejected"]
    lines += [f"{n:>9,}    {reason}: {REASONS[reason]}" for reason, n in rejected.items()]
    return "\n".join(lines)


def write_page(manifest: Path, raw: Path, out: Path, decoding: DecodeConfig) -> None:
    """Write the account as one page that needs no network, with thumbnails of the rejected photographs by reason."""
    outcomes, shown = Counter[tuple[str, ...]](), defaultdict[str, list[tuple[str, str]]](list)
    rows = read_texts(manifest, "status", "split", "reason", "name")
    for (*outcome, name), line in zip(rows, read_lines(raw), strict=True):
        outcomes[tuple(outcome)] += 1
        reason = outcome[2]
        if reason and len(shown[reason]) < _SHOWN:
            shown[reason].append((name, line))
    counts, packed = _counts(outcomes, manifest), packed_folder(raw)
    figures = {
        reason: [_figure(name, entry, packed, decoding) for name, line in some for entry in entries_of([line])]
        for reason, some in shown.items()
    }
    write_text(out, _page(counts, figures))


def _page(counts: dict[str, Any], shown: dict[str, list[str]]) -> str:
    numbers = [("photographs", counts["photographs"]), ("accepted", counts["accepted"])]
    numbers += [(f"&emsp;{split}", n) for split, n in counts["splits"].items()]
    numbers += [("rejected", sum(counts["rejected"].values()))]
    rows = "".join(f"<tr><td>{label}<td class=n>{n:,}" for label, n in numbers)
    parts = []
    for reason, count in counts["rejected"].items():
        figures = shown.get(reason, [])
        note = f", the first {len(figures)} shown" if count > len(figures) else ""
        parts.append(f"<h2>{reason}: {count:,}{note}</h2><p>{html.escape(REASONS[reason])}</p>{''.join(figures)}")
    return (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>What became of every photograph</title>'
        f"<style>{_STYLE}</style><h1>What became of every photograph</h1><table>{rows}</table>{''.join(parts)}\n"
    )


def _figure(name: str, entry: Entry, raw: PackedFolder, decoding: DecodeConfig) -> str:
    picture = _thumbnail(entry, raw, decoding)
    image = f'<img alt="" src="data:image/jpeg;base64,{picture}">' if picture else ""
    return f"<figure>{image}<figcaption>{html.escape(name)}</figcaption></figure>"


def _thumbnail(entry: Entry, raw: PackedFolder, decoding: DecodeConfig) -> str:
    if not entry.shard:
        return ""
    try:
        image = decode(read_photograph(raw, entry.shard, entry.offset, entry.bytes), decoding)
    except Unreadable:
        return ""
    height, width = image.shape[:2]
    gain = min(1.0, _THUMBNAIL_PX / max(height, width))
    size = (max(1, round(width * gain)), max(1, round(height * gain)))
    stream = io.BytesIO()
    Image.fromarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA)).save(stream, "JPEG", quality=80)
    return base64.b64encode(stream.getvalue()).decode()
