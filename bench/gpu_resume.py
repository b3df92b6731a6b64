"""How exact resuming is on a GPU, and whether an update waits for it: for bench/on_gpu.py."""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from bench.results import keep, table
from bench.trainables import level_of, noise_images, pyramid_of
from lapcvae.errors import StoppedError
from lapcvae.pyramid.stored import StoredPyramid
from lapcvae.training.checkpoint import Checkpoints
from lapcvae.training.loop import _Loop, train
from lapcvae.training.processes import Processes
from lapcvae.training.settings import TrainingSettings


def resume(args: argparse.Namespace, device: torch.device, top: Path) -> None:
    """How far a run that was stopped and went on is from one that was not, and whether an update waits for the GPU."""
    folder = top / "pyramid"
    stored, rows = pyramid_of(noise_images(args.count, 64), folder)
    updates, gpu = 2 * args.steps, device.type == "cuda"
    settings = TrainingSettings(
        updates=updates,
        batch=args.batch,
        log_interval=max(1, updates // 6),
        checkpoint_interval=1,
        compile=args.compile,
        precision="bf16" if gpu else "fp32",
    )

    def run(kept: Path | None = None, stop_at: int = 0) -> tuple[dict[str, torch.Tensor], float]:
        def stop(row: dict[str, float]) -> None:
            if row["update"] >= stop_at > 0:
                raise StoppedError("stopped", 15)

        torch.manual_seed(0)
        trainable = level_of(stored, folder, 1, device, **args.small)
        checkpoints = Checkpoints(kept, "x") if kept else None
        with warnings.catch_warnings(record=True) as caught, suppress(StoppedError):
            warnings.simplefilter("always")
            result = train(trainable, rows, settings, 0, Processes(device), "resume", checkpoints, stop)
            loss = result.curve[-1]["val_loss_nats"]
            return {n: v.float().cpu() for n, v in trainable.state_dict().items()}, loss
        return {}, float(len(caught))

    def apart(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
        return max(float((a[n] - b[n]).norm() / a[n].norm().clamp_min(1e-12)) for n in a)

    (top / "kept").mkdir()
    whole, loss = run()
    again, loss_again = run()
    run(top / "kept", updates // 2)
    resumed, loss_resumed = run(top / "kept")
    out: list[list[object]] = [
        ["run again", apart(whole, again), abs(loss_again - loss) / abs(loss)],
        ["stopped half-way and gone on", apart(whole, resumed), abs(loss_resumed - loss) / abs(loss)],
    ]
    header = ["against one run", "weights apart (norm of the difference over the norm, worst tensor)", "held-out loss"]
    keep("on-gpu-resume", [
        f"{updates} updates of level 1, batch {args.batch}. {waits_of(rows, stored, folder, args, device)}",
        table(header, out),
    ], args.out)  # fmt: skip


def waits_of(
    rows: dict[str, np.ndarray], stored: StoredPyramid, folder: Path, args: argparse.Namespace, device: torch.device
) -> str:
    """Operations in updates for which PyTorch says that it waited for the GPU, in words."""
    if device.type != "cuda":
        return "Waits within an update are counted on a GPU only."
    plain, met, seen = _Loop._update, Counter[str](), 0

    def watched(self: _Loop) -> None:
        nonlocal seen
        seen += 1
        if seen <= 10:  # the first ones compile, and make pools of memory
            plain(self)
            return
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            plain(self)
        torch.cuda.set_sync_debug_mode("default")
        met.update(f"{Path(warning.filename).name}:{warning.lineno}" for warning in caught)

    settings = TrainingSettings(updates=40, batch=args.batch, log_interval=40, compile=args.compile)
    _Loop._update = watched  # type: ignore[method-assign]
    try:
        for resident in (True, False):
            trainable = level_of(stored, folder, 1, device, resident, **args.small)
            seen = 0
            train(trainable, {**rows, "val": rows["val"][:0]}, settings, 0, Processes(device), "waits")
    finally:
        _Loop._update = plain  # type: ignore[method-assign]
    return f"Waits for the GPU in 60 updates, resident and streamed: {met.total()} {dict(met.most_common(5))}"
