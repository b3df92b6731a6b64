"""The list of reasons is documented and is the one that is used."""

from __future__ import annotations

from pathlib import Path

from lapcvae.data.reasons import NOT_COUNTED, REASONS

TOP = Path(__file__).parents[2]


def test_every_reason_is_documented_with_its_meaning() -> None:
    text = (TOP / "data" / "README.md").read_text()
    for reason, meaning in REASONS.items():
        assert f"| `{reason}` | {meaning} |" in text


def test_every_reason_is_given_somewhere() -> None:
    files = [p for p in (TOP / "src" / "lapcvae" / "data").glob("*.py") if p.name != "reasons.py"]
    code = "\n".join(p.read_text() for p in files)
    assert all(f'"{reason}"' in code for reason in REASONS)
    assert REASONS.keys() >= NOT_COUNTED
