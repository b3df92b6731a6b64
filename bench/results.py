"""Tables with ratios from one run, printed and kept in a dated file: bench/results/DATE-NAME.md."""

from __future__ import annotations

import os
import resource
import sys
import time
from datetime import date
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def busy_s() -> tuple[float, float]:
    """Processor seconds so far, of everything on this machine and of this process with the children it waited for."""
    own = sum(sum(resource.getrusage(of)[:2]) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:]]
    except (OSError, ValueError):
        return own, own  # not Linux: nothing is known of the others
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK"), own


_BEGAN = time.perf_counter(), *busy_s()


def others() -> str:
    """How much of the processors went to other work while this ran."""
    began, everything, own = _BEGAN
    everything_now, own_now = busy_s()
    taken = max(0.0, (everything_now - everything) - (own_now - own))
    share = taken / (time.perf_counter() - began) / (os.cpu_count() or 1)
    return f"Other processes took {share:.0%} of the processors while this ran."


def machine() -> str:
    """What ran it: processor or GPU, threads, PyTorch."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{os.cpu_count()} cores of a processor with {torch.backends.cpu.get_cpu_capability()}, {gpu}; "
        f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    )


def command() -> str:
    """This process's command line; folders of this machine are named by their last part alone."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return " ".join(["python -m bench." + Path(sys.argv[0]).stem, *words])


def table(header: list[str], rows: list[list[object]]) -> str:
    """A Markdown table."""
    cells = [[_text(value) for value in row] for row in rows]
    lines = [" | ".join(header), " | ".join("---" for _ in header), *(" | ".join(row) for row in cells)]
    return "\n".join(f"| {line} |" for line in lines)


def keep(name: str, parts: list[str], folder: Path = RESULTS) -> None:
    """Print the parts and write them, with the command and the machine, into a dated file."""
    text = "\n\n".join([f"# {name}, {date.today():%Y-%m-%d}", f"`{command()}`", machine(), others(), *parts]) + "\n"
    print(text)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{date.today():%Y-%m-%d}-{name}.md").write_text(text, encoding="utf-8")


def _text(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
