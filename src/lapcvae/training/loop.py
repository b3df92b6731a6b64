"""The one loop that trains levels, baselines and whatever else is a `Trainable`.

Every update is a function of (seed, update): batch, mirroring and noise. So a run that was stopped and goes on from a
checkpoint ends with the same bytes as one that never was; nothing else is random. Within a logging interval the loop
never waits for the device.
"""

from __future__ import annotations

import math
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lapcvae.data.batches import BatchOrder
from lapcvae.errors import StoppedError, TrainingError
from lapcvae.io.progress import progress
from lapcvae.training.checkpoint import Checkpoint, Checkpoints
from lapcvae.training.ema import WeightAverage
from lapcvae.training.feed import Feed
from lapcvae.training.guards import SLOWER, UNUSED_NATS, all_finite, collapse, verdict
from lapcvae.training.meter import Meter
from lapcvae.training.optimiser import Optimiser
from lapcvae.training.precision import use_bf16, use_compiler
from lapcvae.training.processes import Processes
from lapcvae.training.schedule import learning_rate
from lapcvae.training.settings import TrainingSettings
from lapcvae.training.signals import StopRequest
from lapcvae.training.state import Curve, TrainingState
from lapcvae.training.trainable import Trainable

VALIDATION_IMAGES = 256
# What PyTorch raises when a GPU is gone or in error.
_DEVICE_LOST: type[Exception] = getattr(torch, "AcceleratorError", torch.cuda.CudaError)


@dataclass(frozen=True)
class TrainingResult:
    """What training leaves beside the model, which holds the averaged weights.

    curve: a dict a logging interval: `update`, `images_seen`, then nats an image (`loss_nats`, `rate_nats`,
    `distortion_nats` on training batches, `val_loss_nats` on held-out people), `sigma`, `gradient_norm`,
    `learning_rate`, and any other scalar the trainable names. seconds: of all starts together. unused_latents: latents
    whose KL stayed under 0.01 nats in the last interval, of `latents` (0 where the trainable does not tell).
    passed_over, rollbacks: updates the guards skipped, and returns to a checkpoint.
    """

    curve: Curve
    seconds: float
    images_per_second: float
    peak_memory_bytes: int
    unused_latents: int = 0
    latents: int = 0
    passed_over: int = 0
    rollbacks: int = 0


def train(
    trainable: Trainable,
    rows: dict[str, np.ndarray],
    settings: TrainingSettings,
    seed: int,
    processes: Processes,
    label: str,
    checkpoints: Checkpoints | None = None,
    on_log: Callable[[dict[str, float]], None] = lambda row: None,
) -> TrainingResult:
    """Train in place and leave the averaged weights in the trainable.

    rows: indices of the `train` and `val` photographs in the trainable's arrays. on_log is called in the first process,
    once a logging interval with the curve's new row, and after a resumption first with the rows from before.
    Where `checkpoints` holds a whole one, training goes on from there.
    Raises `TrainingError` where it cannot go on, `StoppedError` on SIGINT or SIGTERM once a checkpoint is written,
    `StorageError` where one cannot be written.
    """
    loop = _Loop(trainable, rows, settings, seed, processes, label, checkpoints, on_log)
    try:
        return loop.run()
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{label}: the device's memory is full; raise `accumulate` or lower `batch` in params.yaml ({error})"
        ) from error
    except _DEVICE_LOST as error:
        raise TrainingError(
            f"{label}: the device failed at update {loop.state.update} ({str(error).splitlines()[0]}); run the same "
            "command again to go on from the last checkpoint"
        ) from error
    finally:
        if checkpoints is not None:
            checkpoints.close()


class _Loop:
    def __init__(
        self,
        trainable: Trainable,
        rows: dict[str, np.ndarray],
        settings: TrainingSettings,
        seed: int,
        processes: Processes,
        label: str,
        checkpoints: Checkpoints | None,
        on_log: Callable[[dict[str, float]], None],
    ) -> None:
        self.trainable, self.rows, self.settings, self.seed = trainable, rows, settings, seed
        self.processes, self.label, self.checkpoints, self.on_log = processes, label, checkpoints, on_log
        device = processes.device
        trainable.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=use_bf16(settings.precision, device))
        if use_compiler(settings.compile, device):
            trainable.compile()
        self.called = processes.wrap(trainable)
        self.optimiser = Optimiser(trainable.parts(), settings, device)
        average = WeightAverage(trainable, settings.ema_half_life_images)
        self.state = TrainingState(trainable, average, self.optimiser, Meter(device))
        order = BatchOrder(rows["train"], settings.batch, seed)
        self.feed = Feed(trainable, order, seed, processes, settings.batch, settings.accumulate)
        self.good = self.state.capture(regular=True)
        self.bar = progress(total=settings.updates * settings.batch, label=label, unit="image")

    def run(self) -> TrainingResult:
        """Train from the newest checkpoint, or from the start, to the end."""
        self._resume()
        state, settings = self.state, self.settings
        start, started_at, seconds_before = time.monotonic(), state.update, state.seconds
        self.trainable.train()
        with StopRequest() as stop:
            while state.update < settings.updates:
                self._update()
                if state.update % settings.log_interval == 0 or state.update == settings.updates:
                    speed = (state.update - started_at) * settings.batch / (time.monotonic() - start)
                    state.seconds = seconds_before + time.monotonic() - start
                    if reason := self._end_interval(speed):
                        self._return_to_good(reason)
                        started_at, start, seconds_before = state.update, time.monotonic(), state.seconds
                if self._stop_now(stop):
                    state.seconds = seconds_before + time.monotonic() - start
                    self._stop(stop.signum)
        self.bar.close()
        if self.checkpoints is not None:
            self.checkpoints.wait()
        self.trainable.load_state_dict(state.average.state)
        self.trainable.eval()
        return TrainingResult(
            curve=state.curve,
            seconds=state.seconds,
            images_per_second=settings.updates * settings.batch / max(state.seconds, 1e-9),
            peak_memory_bytes=peak_memory_bytes(self.processes.device),
            unused_latents=state.unused_latents,
            latents=state.latents,
            passed_over=state.passed_over,
            rollbacks=state.rollbacks,
        )

    def _update(self) -> None:
        """One optimiser step; nothing here waits for the device."""
        state, accumulate = self.state, self.settings.accumulate
        sums: dict[str, Tensor] = {}
        sound: Tensor | None = None
        for part, (packed, noise) in enumerate(self.feed.batches(state.update)):
            last = part + 1 == accumulate
            with nullcontext() if last else self.processes.apart(self.called):
                with self.autocast:
                    terms = self.called(packed, noise)
                losses = self.trainable.losses(terms, state.update)
                self.optimiser.backward(losses, 1 / accumulate)
            finite = torch.stack([loss.detach() for loss in losses.values()]).isfinite().all()
            sound = finite if sound is None else sound & finite
            for name, value in terms.items():
                share = value.detach() / accumulate if accumulate > 1 else value.detach()
                sums[name] = sums[name] + share if part else share
        norm, usual = self.optimiser.clip()
        assert sound is not None
        accepted = self.processes.any((~(sound & usual)).float()) == 0
        rate = learning_rate(self.settings, state.update) * state.rate_scale
        self.optimiser.step(rate, norm, accepted)
        state.update += 1
        state.average.update(state.update * self.settings.batch, self.settings.batch)
        state.meter.add({**sums, "gradient_norm": norm}, accepted)
        self.bar.update(self.settings.batch)

    def _end_interval(self, speed: float) -> str:
        """Read the interval, and log it; or say why it was bad."""
        state, settings, dimensions = self.state, self.settings, self.trainable.dimensions()
        updates = state.meter.updates
        means, vectors, accepted, in_a_row = state.meter.read()
        state.passed_over += updates - accepted
        loss = means["rate_nats"] + means["distortion_nats"]
        lowest = min((row["loss_nats"] for row in state.curve), default=math.inf)
        finite = all_finite(state.average.state)
        reason = verdict(loss / dimensions, lowest / dimensions, accepted, in_a_row, finite, updates)
        if reason := self.processes.same(reason):
            return f"{reason} at update {state.update}"
        norm = means.pop("gradient_norm")
        row = {
            "update": state.update,
            "images_seen": state.update * settings.batch,
            "loss_nats": loss,
            "rate_nats": means.pop("rate_nats"),
            "distortion_nats": means.pop("distortion_nats"),
            "val_loss_nats": self._held_out_loss(),
            **({"sigma": math.exp(means.pop("log_sigma"))} if "log_sigma" in means else {}),
            "gradient_norm": norm,
            "learning_rate": learning_rate(settings, state.update - 1) * state.rate_scale,
            **means,
        }
        state.curve.append(row)
        self._watch_latents(row["rate_nats"], vectors.get("kl_units_nats"))
        if self.processes.first:
            memory = peak_memory_bytes(self.processes.device)
            self.bar.set_postfix_str(
                f"loss {loss:.0f} = rate {row['rate_nats']:.0f} + distortion {row['distortion_nats']:.0f} nats, "
                f"gradient {norm:.2g}, {speed:.0f} images/s, {memory / 2**30:.1f} GiB"
            )
            self.on_log({**row, "images_per_second": speed, "peak_memory_bytes": memory})
        if state.update % settings.checkpoint_every == 0 or state.update == settings.updates:
            self.good = state.capture(regular=True)
            self._save(self.good)
        return ""

    def _watch_latents(self, rate_nats: float, kl_units: Tensor | None) -> None:
        if kl_units is None:
            return
        state = self.state
        state.latents, state.unused_latents = kl_units.numel(), int((kl_units < UNUSED_NATS).sum())
        share_done = state.update / self.settings.updates
        warning = collapse(self.label, rate_nats, state.unused_latents, state.latents, share_done)
        if warning and not state.collapse_told and self.processes.first:
            print(warning, file=sys.stderr)
        state.collapse_told = state.collapse_told or bool(warning)

    def _return_to_good(self, reason: str) -> None:
        """Go back to the last good checkpoint with a lower learning rate, or give up."""
        state, rollbacks = self.state, self.state.rollbacks + 1
        if rollbacks > self.settings.max_rollbacks:
            if self.checkpoints is not None:
                self.checkpoints.clear()  # so that the next start is a new one
            raise TrainingError(
                f"{self.label}: {reason}, and {self.settings.max_rollbacks} returns to an earlier checkpoint with a "
                "lower learning rate did not help; lower `learning_rate` or `clip_norm` in params.yaml. Nothing was "
                "written"
            )
        slower, passed_over, seconds = state.rate_scale * SLOWER, state.passed_over, state.seconds
        state.restore(self.good)
        state.rollbacks, state.rate_scale, state.passed_over, state.seconds = rollbacks, slower, passed_over, seconds
        self.good = state.capture(regular=True)
        self._save(self.good)
        self.bar.n = state.update * self.settings.batch
        if self.processes.first:
            print(
                f"warning: {self.label}: {reason}; going on from update {state.update} with {slower:g} of the learning "
                f"rate (return {rollbacks} of at most {self.settings.max_rollbacks})",
                file=sys.stderr,
            )

    def _resume(self) -> None:
        """Go on from the newest whole checkpoint, if there is one; the first process reads for all."""
        newest = regular = None
        if self.checkpoints is not None and self.processes.first:
            newest = self.checkpoints.newest()
            regular = newest if newest is None or newest.regular else self.checkpoints.newest(regular=True)
        newest, regular = self.processes.same((newest, regular))
        if newest is None:
            self._save(self.good)
            return
        self.state.restore(newest)
        self.good = regular or self.good
        self.bar.update(newest.update * self.settings.batch)
        if self.processes.first:
            print(f"{self.label}: going on from update {newest.update} of {self.settings.updates}", file=sys.stderr)
            for row in self.state.curve:
                self.on_log(row)

    def _save(self, checkpoint: Checkpoint) -> None:
        if self.checkpoints is not None and self.processes.first:
            self.checkpoints.save(checkpoint)

    def _stop_now(self, stop: StopRequest) -> bool:
        if self.processes.count == 1:
            return stop.signum != 0
        # Processes must stop at the same update, and meeting at each one would cost: they meet where they meet anyway.
        if self.state.update % self.settings.log_interval:
            return False
        flag = torch.tensor(float(stop.signum), device=self.processes.device)
        stop.signum = int(self.processes.any(flag).item())
        return stop.signum != 0

    def _stop(self, signum: int) -> None:
        self._save(self.state.capture(regular=False))
        kept = ""
        if self.checkpoints is not None:
            self.checkpoints.wait()
            kept = "; the same command goes on from there"
        name = signal.Signals(signum).name
        raise StoppedError(f"{self.label}: stopped by {name} after update {self.state.update}{kept}", signum)

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        """-(evidence bound) in nats of up to `VALIDATION_IMAGES` held-out photographs, always with the same noise."""
        rows = self.rows["val"][:VALIDATION_IMAGES]
        if len(rows) == 0:
            return math.nan
        self.trainable.eval()
        packed, noise = self.feed.held_out(rows)
        with self.autocast:
            terms = self.trainable.forward(packed, noise)  # not compiled: another batch size would compile anew
        self.trainable.train()
        return float(terms["rate_nats"] + terms["distortion_nats"])


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory taken so far: the GPU's allocator, or the process on the processor."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
