"""validate: data/aligned/manifest.csv -> reports/validation.json and reports/data_docs, or a stop.

What became of every photograph is written to reports/account.html first: it is wanted most after a stop.
"""

from __future__ import annotations

from pathlib import Path

from lapcvae.config import load
from lapcvae.data.account import write_page
from lapcvae.data.decode import DecodeConfig
from lapcvae.data.expectations import ValidateConfig
from lapcvae.data.split import SplitConfig
from lapcvae.data.validation import ValidationFiles, validate
from pipelines.stage import run_stage


def work() -> str:
    """Run the stage; returns its status line."""
    manifest = Path("data/aligned/manifest.csv")
    write_page(manifest, Path("data/raw"), Path("reports/account.html"), load(DecodeConfig, "decode"))
    findings = validate(
        ValidationFiles(
            manifest, Path("data/accepted.json"), Path("reports/validation.json"), Path("reports/data_docs")
        ),
        config=load(ValidateConfig, "validate"),
        split=load(SplitConfig, "split"),
    )
    return f"{len(findings)} expectations hold; see reports/data_docs/index.html and reports/account.html"


if __name__ == "__main__":
    run_stage("validate", work)
