"""Which arithmetic the networks run in, measured where it cannot be known, and whether they are compiled."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from lapcvae.io.atomic import write_json
from lapcvae.training.settings import Compile, Precision

# Turns that are timed in each arithmetic, after one to warm up; the fastest counts. The fewest where one is faster by
# `CLEAR`, the most where it is not: a busy moment must not decide. On processors with instructions for bf16 it was
# found to be at least 1.24 times as fast, on others at most 0.46 times.
TURNS = 3, 12
CLEAR = 1.4
# A training of fewer updates stays with fp32: it would not win back the 8 to 26 steps that measuring takes.
WORTH_UPDATES = 100
# Updates in which a GPU wins back the 13 to 33 s that compiling takes (bench/results/2026-11-26-gpu-replayed.md).
COMPILING_PAYS = 10_000


@dataclass(frozen=True)
class Measured:
    """How `precision: auto` decides on a processor.

    step: one step forward and backward, in bf16 or not, that leaves nothing behind. what: names the network and the
    batch it was timed on. kept: where the choice is kept, so that it is made once on a machine; None: nowhere. clock:
    in seconds; by default it is this process's own time, which other work on the machine moves less. quiet: waits,
    before anything is timed, for other work that this program has begun: where a thread's core is taken, those that
    wait for it count as busy.
    """

    step: Callable[[bool], None]
    what: str
    kept: Path | None = None
    clock: Callable[[], float] = time.process_time
    quiet: Callable[[], None] = lambda: None

    def bf16(self) -> bool:
        """Whether bf16 is faster, as found before on this machine or as found now."""
        key, known = self._key(), self._known()
        if key not in known:
            self.quiet()
            ratio = speedup(self.step, self.clock)
            known[key] = {"bf16": ratio > 1, "speedup": ratio}
            if self.kept is not None:
                self.kept.parent.mkdir(parents=True, exist_ok=True)
                write_json(self.kept, known)
        return bool(known[key]["bf16"])

    def _key(self) -> str:
        return hashlib.sha256("\0".join((processor(), torch.__version__, self.what)).encode()).hexdigest()[:32]

    def _known(self) -> dict[str, dict[str, bool | float]]:
        try:
            tree = json.loads(self.kept.read_text(encoding="utf-8")) if self.kept is not None else {}
            return {key: {"bf16": bool(v["bf16"]), "speedup": float(v["speedup"])} for key, v in tree.items()}
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            return {}  # none yet, or damaged: a cache costs time, not more


def speedup(step: Callable[[bool], None], clock: Callable[[], float] = time.process_time) -> float:
    """How many times as fast as in fp32 `step` is in bf16: the fastest turn of each, taken alternately."""
    fewest, most = TURNS
    for bf16 in (False, True):
        step(bf16)  # the first makes kernels, which takes longer than it takes to run them
    best, ratio = {False: math.inf, True: math.inf}, 1.0
    for turn in range(1, most + 1):
        for bf16 in best:
            start = clock()
            step(bf16)
            best[bf16] = min(best[bf16], clock() - start)
        ratio = best[False] / best[True]
        if turn >= fewest and not 1 / CLEAR < ratio < CLEAR:
            break
    return ratio


def use_bf16(precision: Precision, device: torch.device, updates: int, measured: Measured) -> bool:
    """Whether to run networks in bf16: asked for, or `auto` where it is faster.

    A GPU says itself whether it multiplies bf16 matrices natively. Processors that have such instructions differ too
    much, with the sizes of the network and the batch, for anything but a measurement.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and updates >= WORTH_UPDATES and measured.bf16()


def processor() -> str:
    """The processor's model, its vector instructions and the threads that PyTorch uses of it."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass  # not Linux
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def compiled_and_replayed(choice: Compile, device: torch.device, processes: int, updates: int) -> tuple[bool, bool]:
    """Whether networks are compiled, and whether updates are replayed as graphs.

    `auto` is neither on a processor, and on a GPU `graphs`, or `full` where there are `COMPILING_PAYS` updates or more.
    Several processes meet within an update, which no graph holds: then nothing is replayed. `auto` goes on without the
    compiler where it fails; the others let its error through.
    """
    if choice == "off" or (choice == "auto" and device.type != "cuda"):
        return False, False
    if choice == "auto" and updates < COMPILING_PAYS:
        choice = "graphs"
    elif choice == "auto":
        import torch._dynamo  # takes seconds to import, and only a compiled run needs it

        torch._dynamo.config.suppress_errors = True
    return choice != "graphs", choice != "on" and processes == 1
