"""The one loop that trains levels and baselines.

Every step is a function of (seed, step): batch, mirroring and latent noise. Nothing else is random.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from lapcvae.data.batches import BatchOrder
from lapcvae.errors import TrainingError
from lapcvae.io.progress import progress
from lapcvae.models.cascade import run_level
from lapcvae.models.level import LevelCVAE
from lapcvae.pyramid.filters import PyramidKind
from lapcvae.training.arrays import LevelArrays
from lapcvae.training.ema import WeightAverage
from lapcvae.training.objective import batch_log_sigma, noisy, terms
from lapcvae.training.precision import use_bf16
from lapcvae.training.settings import TrainingSettings

VALIDATION_IMAGES = 256


@dataclass(frozen=True)
class TrainingResult:
    """What training leaves beside the model, which holds the averaged weights.

    curve: a dict a logging interval: `update`, `images_seen`, then nats an image (`loss_nats`, `rate_nats`,
    `distortion_nats` on training batches, `val_loss_nats` on held-out people), `sigma`, `gradient_norm`,
    `learning_rate`.
    """

    curve: list[dict[str, float]]
    seconds: float
    images_per_second: float
    peak_memory_bytes: int


def train(
    level: LevelCVAE,
    arrays: LevelArrays,
    rows: dict[str, np.ndarray],
    kind: PyramidKind,
    settings: TrainingSettings,
    seed: int,
    device: torch.device,
    label: str,
    on_log: Callable[[dict[str, float]], None] = lambda row: None,
) -> TrainingResult:
    """Train a level in place and leave the averaged weights in it.

    rows: indices of the `train` and `val` photographs in the arrays. on_log is called once a logging interval with
    the curve's new row. Raises `TrainingError` when the loss is no longer finite.
    """
    level.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=use_bf16(settings.precision, device))
    order = BatchOrder(rows["train"], settings.batch, seed)
    trained = [p for p in level.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.99), fused=True
    )
    average = WeightAverage(level, settings.ema_half_life_images)
    noise = torch.Generator(device)
    curve: list[dict[str, float]] = []
    sums = torch.zeros(4, device=device)
    start = time.monotonic()
    bar = progress(total=settings.updates * settings.batch, label=label, unit="image")
    level.train()
    for step in range(settings.updates):
        # Seeds of neighbouring steps and of other uses must not meet: SeedSequence mixes them.
        noise.manual_seed(int(np.random.SeedSequence([seed, 2, step]).generate_state(1)[0]))
        x, coarser = arrays.gather(*order.at(step))
        coarser = noisy(coarser, level.settings, noise)
        with autocast:
            done = run_level(level, x, coarser, kind, noise)
        rate, paid, distortion = terms(level, done)
        warm = min(1.0, (step + 1) / level.settings.kl_warmup) if level.settings.kl_warmup else 1.0
        # Divided by the dimensions so that one learning rate and one clipping norm suit every size.
        loss = (distortion + warm * level.settings.kl_weight * paid) / x[0].numel()
        loss.backward()
        gradient_norm = torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm)
        learning_rate = _learning_rate(settings, step)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        average.update(level, (step + 1) * settings.batch, settings.batch)
        sums += torch.stack([rate.detach(), distortion.detach(), batch_log_sigma(level, done).detach(), gradient_norm])
        bar.update(settings.batch)
        if (step + 1) % settings.log_interval == 0 or step + 1 == settings.updates:
            count = (step % settings.log_interval) + 1
            rate_nats, distortion_nats, log_sigma, norm = (sums / count).tolist()
            sums.zero_()
            if not math.isfinite(rate_nats + distortion_nats + norm):
                raise TrainingError(
                    f"{label}: the loss or its gradient is no longer finite at update {step + 1}; lower "
                    "`learning_rate` or `clip_norm` in params.yaml. Nothing was written"
                )
            row = {
                "update": step + 1,
                "images_seen": (step + 1) * settings.batch,
                "loss_nats": rate_nats + distortion_nats,
                "rate_nats": rate_nats,
                "distortion_nats": distortion_nats,
                "val_loss_nats": _held_out_loss(level, arrays, rows["val"], kind, seed, autocast),
                "sigma": math.exp(log_sigma),
                "gradient_norm": norm,
                "learning_rate": learning_rate,
            }
            curve.append(row)
            seconds = time.monotonic() - start
            memory = peak_memory_bytes(device)
            bar.set_postfix_str(f"loss {row['loss_nats']:.0f} nats, {memory / 2**30:.1f} GiB")
            on_log({**row, "images_per_second": row["images_seen"] / seconds, "peak_memory_bytes": memory})
    bar.close()
    seconds = time.monotonic() - start
    level.load_state_dict(average.state)
    level.eval()
    return TrainingResult(curve, seconds, settings.updates * settings.batch / seconds, peak_memory_bytes(device))


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory taken so far: the GPU's allocator, or the process on the processor."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _learning_rate(settings: TrainingSettings, step: int) -> float:
    rise = min(1.0, (step + 1) / settings.warmup_updates) if settings.warmup_updates else 1.0
    fall = 0.5 * (1 + math.cos(math.pi * step / settings.updates))
    return settings.learning_rate * rise * fall


@torch.no_grad()
def _held_out_loss(
    level: LevelCVAE, arrays: LevelArrays, rows: np.ndarray, kind: PyramidKind, seed: int, autocast: torch.autocast
) -> float:
    """-(evidence bound) in nats of up to `VALIDATION_IMAGES` held-out photographs, always with the same noise."""
    rows = rows[:VALIDATION_IMAGES]
    if len(rows) == 0:
        return math.nan
    level.eval()
    x, coarser = arrays.gather(rows, np.zeros_like(rows))
    noise = torch.Generator(x.device)
    noise.manual_seed(seed)
    with autocast:
        done = run_level(level, x, coarser, kind, noise)
    rate, _, distortion = terms(level, done)
    level.train()
    return float(rate + distortion)
