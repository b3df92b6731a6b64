"""The loop against a bare step on tensors already resident: the aim is at most 3 % slower.

    python -m bench.loop_overhead [--updates 60] [--batch 64]

The bare step: forward, loss, backward, clipping, AdamW, on one batch of fp32 images that is never changed. The loop
adds batches (data resident on the device, and streamed from the mapped file), augmentation, noise, weight average,
guards, running sums. On the processor both kinds of data are the mapped file, so one is measured. Turns alternate, and
the median of the turns is taken.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from bench.results import keep, table
from bench.trainables import images_per_second, level_of, noise_images, pyramid_of
from lapcvae.training.precision import use_bf16, use_compiler
from lapcvae.training.settings import TrainingSettings
from lapcvae.training.trainable import LevelTraining


def bare(trainable: LevelTraining, batch: int, updates: int, device: torch.device) -> float:
    """Images a second of the bare step."""
    trainable.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if use_compiler("auto", device):
        trainable.compile()
    trainable.train()
    side, settings = trainable.level.side, TrainingSettings(updates=updates, batch=batch)
    image = torch.rand(batch, side, side, 3, device=device)
    flips = torch.zeros(batch, dtype=torch.int64, device=device)
    half = torch.rand(batch, side // 2, side // 2, 3, device=device)
    packed = (image, flips) if trainable.level.coarsest else (image, flips, half, flips, half, flips)
    noise = tuple(torch.randn(batch, *shape, device=device) for shape in trainable.noise_shapes())
    parameters = [p for p in trainable.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=use_bf16(settings.precision, device))
    start = 0.0
    for update in range(updates):
        if update == updates // 3:
            _wait(device)
            start = time.perf_counter()
        with autocast:
            terms = trainable(packed, noise)
        trainable.losses(terms, update)["model"].backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
    _wait(device)
    return (updates - updates // 3) * batch / (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Measure levels 1 and 3 of 64 px."""
    parser = argparse.ArgumentParser(description="what the loop adds to a bare step")
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    count, batch = arguments.updates, arguments.batch
    settings = TrainingSettings(updates=count, batch=batch, log_interval=max(1, count // 3), checkpoint_interval=count)
    out: list[list[object]] = []
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top, "pyramid")
        stored, rows = pyramid_of(noise_images(2048, 64), folder)
        for k in (1, 3):
            kinds = {"resident": True, "streamed": False} if device.type == "cuda" else {"mapped file": False}
            rates: dict[str, list[float]] = {name: [] for name in ("bare step", *kinds)}
            for _ in range(arguments.turns):
                rates["bare step"].append(bare(level_of(stored, folder, k, device, blocks=1), batch, count, device))
                for name, resident in kinds.items():
                    trainable = level_of(stored, folder, k, device, resident, blocks=1)
                    rates[name].append(images_per_second(trainable, rows, settings, device))
            median = {name: statistics.median(values) for name, values in rates.items()}
            out += [[k, name, rate, rate / median["bare step"]] for name, rate in median.items()]
    keep("loop-overhead", "python -m bench.loop_overhead", [table(["level", "what", "images/s", "ratio"], out)])


if __name__ == "__main__":
    main()
