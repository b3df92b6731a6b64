"""Data Docs that can be read without a network: pages without scripts or anything from elsewhere, and a plain index."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

# Great Expectations' pages fetch scripts, styles and pictures from half a dozen hosts. Their text needs none of it.
_REMOTE = (
    (re.compile(r"<script\b.*?</script>", re.DOTALL | re.IGNORECASE), ""),
    (re.compile(r"<(?:link|img)\b[^>]*?(?:href|src)=[\"']https?://[^>]*>", re.DOTALL | re.IGNORECASE), ""),
    (re.compile(r"url\(\s*[\"']?https?://[^)]*\)", re.IGNORECASE), "none"),
)
_STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td, th { padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top }
tr { border-bottom: 1px solid #ddd } code { overflow-wrap: anywhere } .modal, nav ul { display: none }
.breach { background: #fdd }
</style>"""


class Outcome(Protocol):
    """What the index shows of one expectation."""

    @property
    def expectation(self) -> str: ...
    @property
    def holds(self) -> bool: ...
    @property
    def observed(self) -> str: ...
    @property
    def examples(self) -> tuple[str, ...]: ...


def make_offline(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Strip every page below `folder` of what comes from elsewhere, and write `folder`/index.html anew."""
    index = folder / "index.html"
    pages = sorted(page for page in folder.rglob("*.html") if page != index)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for pattern, instead in _REMOTE:
            text = pattern.sub(instead, text)
        page.write_text(text.replace("</head>", f"{_STYLE}</head>", 1), encoding="utf-8")
    links = "".join(f'<li><a href="{p.relative_to(folder).as_posix()}">{_title(p, folder)}</a>' for p in pages)
    broken = sum(not outcome.holds for outcome in outcomes)
    verdict = f"{broken} of {len(outcomes)} expectations are broken" if broken else f"{len(outcomes)} expectations hold"
    rows = "".join(_row(outcome) for outcome in sorted(outcomes, key=lambda o: (o.holds, o.expectation)))
    index.write_text(
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Data Docs</title>{_STYLE}</head>'
        f"<h1>Data Docs: {verdict}</h1><table><tr><th><th>Expectation<th>Found<th>Photographs{rows}</table>"
        f"<h2>Pages of Great Expectations</h2><ul>{links}</ul>\n",
        encoding="utf-8",
    )


def _title(page: Path, folder: Path) -> str:
    kind = "expectations on" if page.parent.name == "expectations" else "results for"
    name = page.stem if page.parent.name == "expectations" else page.relative_to(folder).parts[1]
    return f"{kind} {html.escape(name)}"


def _row(outcome: Outcome) -> str:
    examples = "<br>".join(html.escape(name) for name in outcome.examples)
    mark, style = ("holds", "") if outcome.holds else ("BROKEN", ' class="breach"')
    text = html.escape(outcome.expectation.removeprefix("expect_"))
    return f"<tr{style}><td>{mark}<td><code>{text}</code><td>{html.escape(outcome.observed)}<td>{examples}"
