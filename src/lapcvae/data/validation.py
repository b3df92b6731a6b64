"""The `validate` stage's work: the manifest is examined, the findings are written, and a breach stops the pipeline."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from lapcvae.data.expectations import Finding, ValidateConfig, examine
from lapcvae.data.manifest_table import manifest_table
from lapcvae.data.split import SplitConfig
from lapcvae.data.summary import read_reference, summarise
from lapcvae.errors import ExpectationError
from lapcvae.io.atomic import atomic_folder, write_json


@dataclass(frozen=True)
class ValidationFiles:
    """What `validate` reads (the first two) and writes."""

    manifest: Path
    reference: Path  # figures of the last accepted data set; may be missing
    report: Path  # JSON
    docs: Path  # folder of pages


def validate(files: ValidationFiles, config: ValidateConfig, split: SplitConfig) -> list[Finding]:
    """Examine the manifest; write the report and the pages. Raises `ExpectationError` on a breach.

    On a breach the report lies beside its place under the name `*.breach.json`, and no old one is left in its place.
    """
    report, docs = files.report, files.docs
    with manifest_table(files.manifest) as table, atomic_folder(docs) as folder:
        summary = summarise(table, split, read_reference(files.reference))
        findings = examine(table, summary["totals"], config, folder)
    broken = [finding for finding in findings if not finding.holds]
    breach = report.with_name(f"{report.stem}.breach.json")
    target = breach if broken else report
    write_json(target, {"holds": not broken, "summary": summary, "findings": [asdict(f) for f in findings]})
    if broken:
        report.unlink(missing_ok=True)
        raise ExpectationError(_message(broken, breach, docs))
    breach.unlink(missing_ok=True)
    return findings


def _message(broken: list[Finding], breach: Path, docs: Path) -> str:
    lines = [f"the data set breaks {len(broken)} expectation{'s' * (len(broken) > 1)}:"]
    for finding in broken:
        lines.append(f"  {re.sub('^expect_', '', finding.expectation)}: {finding.observed}")
        lines += [f"    {name}" for name in finding.examples]
    lines.append(f"All findings: {breach} and {docs}/index.html. Mend the source, or set other limits in params.yaml")
    return "\n".join(lines)
