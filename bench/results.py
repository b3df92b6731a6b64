"""Tables with ratios from one run, printed and kept in a dated file: bench/results/DATE-NAME.md."""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """What ran it: processor or GPU, threads, PyTorch."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    capability = torch.backends.cpu.get_cpu_capability()
    return (
        f"{device} ({capability}, {os.cpu_count()} logical cores), {torch.get_num_threads()} threads, "
        f"PyTorch {torch.__version__}"
    )


def table(header: list[str], rows: list[list[object]]) -> str:
    """A Markdown table."""
    cells = [[_text(value) for value in row] for row in rows]
    lines = [" | ".join(header), " | ".join("---" for _ in header), *(" | ".join(row) for row in cells)]
    return "\n".join(f"| {line} |" for line in lines)


def keep(name: str, command: str, parts: list[str], folder: Path = RESULTS) -> None:
    """Print the parts and write them, with the command and the machine, into a dated file."""
    text = "\n\n".join([f"# {name}, {date.today():%Y-%m-%d}", f"`{command}`", machine(), *parts]) + "\n"
    print(text)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{date.today():%Y-%m-%d}-{name}.md").write_text(text, encoding="utf-8")


def _text(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
