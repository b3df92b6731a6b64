"""The one loop that trains levels, baselines and whatever else is a `Trainable`.

Every update is a function of (seed, update): batch, mirroring and noise. So a run that was stopped and goes on from a
checkpoint ends with the same bytes as one that never was; nothing else is random. Within a logging interval the loop
never waits for the device.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lapcvae.data.batches import BatchOrder
from lapcvae.errors import TrainingError
from lapcvae.io.memory import held_memory
from lapcvae.io.progress import progress
from lapcvae.training.account import Account
from lapcvae.training.checkpoint import Checkpoints
from lapcvae.training.ema import WeightAverage
from lapcvae.training.feed import Feed
from lapcvae.training.guards import UNUSED_NATS, all_finite, collapse, settled, verdict
from lapcvae.training.held_out import STATISTICS_IMAGES, HeldOut
from lapcvae.training.layout import Batch
from lapcvae.training.meter import Meter
from lapcvae.training.optimiser import Optimiser
from lapcvae.training.precision import Measured, compiled_and_replayed, use_bf16
from lapcvae.training.processes import Processes
from lapcvae.training.recovery import Recovery
from lapcvae.training.replayed import Moment, Replayed
from lapcvae.training.result import TrainingResult, peak_memory_bytes
from lapcvae.training.schedule import learning_rate
from lapcvae.training.settings import TrainingSettings
from lapcvae.training.signals import StopRequest
from lapcvae.training.state import TrainingState
from lapcvae.training.trainable import KL_UNITS, Trainable

# What libraries raise when a GPU, or a process beside this one, is gone or in error is known by these names alone.
_LIBRARIES = ("CUDA error", "CUDA driver error", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS", "NCCL", "/gloo/")


def train(
    trainable: Trainable,
    rows: dict[str, np.ndarray],
    settings: TrainingSettings,
    seed: int,
    processes: Processes,
    label: str,
    checkpoints: Checkpoints | None = None,
    on_log: Callable[[dict[str, float]], None] = lambda row: None,
    choices: Path | None = None,
    quiet: Callable[[], None] = lambda: None,
) -> TrainingResult:
    """Train in place and leave the averaged weights in the trainable.

    rows: indices of the `train` and `val` photographs in the trainable's arrays. on_log is called in the first process,
    once a logging interval with the curve's new row, and after a resumption first with the rows from before.
    Where `checkpoints` holds a whole one, training goes on from there. choices: a file of this machine that keeps what
    `precision: auto` has measured; without it there is nothing kept. quiet: see `Measured`.
    Raises `TrainingError` where it cannot go on, `StoppedError` on SIGINT or SIGTERM once a checkpoint is written,
    `StorageError` where one cannot be written.
    """
    loop = _Loop(trainable, rows, settings, seed, processes, label, checkpoints, on_log, choices, quiet)
    try:
        with held_memory(processes.device):
            return loop.run()
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{label}: the device's memory is full; raise `accumulate` or lower `batch` in params.yaml ({error})"
        ) from error
    except RuntimeError as error:
        if not isinstance(error, torch.AcceleratorError) and not any(name in str(error) for name in _LIBRARIES):
            raise
        raise TrainingError(
            f"{label}: the device{' or another process' if processes.count > 1 else ''} failed at update "
            f"{loop.state.update} ({str(error).splitlines()[0]}); run the same command again to go on from the last "
            "checkpoint"
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
        choices: Path | None,
        quiet: Callable[[], None],
    ) -> None:
        self.trainable, self.rows, self.settings = trainable, rows, settings
        self.processes, self.label, self.on_log = processes, label, on_log
        device = processes.device
        trainable.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        compiled, replayed = compiled_and_replayed(settings.compile, device, processes.count, settings.updates)
        if compiled:
            trainable.compile()
        required = settings.compile != "auto"
        self.replayed = Replayed(self._compute, self._moment, device, required) if replayed else None
        self.called = processes.wrap(trainable)
        self.optimiser = Optimiser(trainable.parts(), settings, device)
        average = WeightAverage(trainable, settings.ema_half_life_images)
        self.state = TrainingState(trainable, average, self.optimiser, Meter(device))
        decide = Account(self.optimiser, self.state.meter, processes).decide
        self.decide = torch.compile(decide) if compiled and replayed else decide
        order = BatchOrder(rows["train"], settings.batch, seed)
        self.feed = Feed(trainable, order, seed, processes, settings.batch, settings.accumulate)
        self.held_out = HeldOut(trainable, rows, self.feed, settings.batch // settings.accumulate)
        self.measured = Measured(self._timed_step, self._shapes(), choices, quiet=quiet)
        self.recovery = Recovery(self.state, checkpoints, settings, processes, label)
        self.bar = progress(total=settings.updates * settings.batch, label=label, unit="image")

    def run(self) -> TrainingResult:
        """Train from the newest checkpoint, or from the start, to the end."""
        state, settings = self.state, self.settings
        self.trainable.train()
        self._begin()
        self.autocast = torch.autocast(self.processes.device.type, torch.bfloat16, enabled=state.precision == "bf16")
        start, started_at, seconds_before = time.monotonic(), state.update, state.seconds
        with StopRequest() as stop:
            while state.update < settings.updates:
                self._update()
                if state.update % settings.log_interval == 0 or state.update == settings.updates:
                    speed = (state.update - started_at) * settings.batch / (time.monotonic() - start)
                    state.seconds = seconds_before + time.monotonic() - start
                    if reason := self._end_interval(speed):
                        self.recovery.return_to_good(reason)
                        if self.replayed is not None:
                            self.replayed.forget()  # the learning rate is another
                        self.bar.n = state.update * settings.batch
                        started_at, start, seconds_before = state.update, time.monotonic(), state.seconds
                if self.recovery.stop_now(stop):
                    state.seconds = seconds_before + time.monotonic() - start
                    self.recovery.stop(stop.signum)
        self.bar.close()
        self.feed.close()
        self.recovery.wait()
        self.trainable.load_state_dict(state.average.state)
        with self.autocast:
            self.held_out.take_statistics(STATISTICS_IMAGES)
        self.trainable.eval()
        return TrainingResult.of(state, settings, self.processes.device)

    def _begin(self) -> None:
        """Go on from a checkpoint, in the arithmetic it was made in, or choose one and keep the start."""
        if self.recovery.resume():
            self.bar.update(self.state.update * self.settings.batch)
            if self.processes.first:
                for row in self.state.curve:
                    self.on_log(row)
            return
        bf16 = use_bf16(self.settings.precision, self.processes.device, self.settings.updates, self.measured)
        # Processes may time differently, but must compute alike.
        self.state.precision = self.processes.same("bf16" if bf16 else "fp32")
        self.recovery.keep()

    def _timed_step(self, bf16: bool) -> None:
        """The first update's first part forward and backward, not compiled; then everything is as it was."""
        buffers = [(buffer, buffer.clone()) for buffer in self.trainable.buffers()]
        packed, noise = self.feed.inputs(0).batches()[0]
        with torch.autocast(self.processes.device.type, torch.bfloat16, enabled=bf16):
            terms = self.trainable.forward(packed, noise)
        self.optimiser.backward(self.trainable.losses(terms, 0), 1.0)
        self.optimiser.forget_gradients()
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)

    def _shapes(self) -> str:
        """What the time of a step depends on: the layers, and the images of a part."""
        part = self.settings.batch // (self.settings.accumulate * self.processes.count)
        return f"{self.trainable}\n{part} images, {self.trainable.noise_shapes()}, {self.processes.count} processes"

    def _update(self) -> None:
        """One optimiser step; nothing here waits for the device."""
        state = self.state
        inputs = self.feed.inputs(state.update)
        if self.replayed is not None:
            self.replayed(inputs, state.update)
        else:
            self._compute(inputs.batches(), self._moment(state.update))
        state.update += 1
        state.meter.updates += 1
        self.bar.update(self.settings.batch)

    def _moment(self, update: int) -> Moment:
        state, settings = self.state, self.settings
        share = state.average.share((update + 1) * settings.batch, settings.batch)
        return Moment(update, learning_rate(settings, update) * state.rate_scale, share)

    def _compute(self, batches: list[Batch], moment: Moment) -> None:
        """What of an update the device does: changes tensors in place, and nothing else."""
        state, accumulate = self.state, self.settings.accumulate
        sums: dict[str, Tensor] = {}
        minimised: list[Tensor] = []
        for part, (packed, noise) in enumerate(batches):
            last = part + 1 == accumulate
            with nullcontext() if last else self.processes.apart(self.called):
                with self.autocast:
                    terms = self.called(packed, noise)
                losses = self.trainable.losses(terms, moment.update)
                self.optimiser.backward(losses, 1 / accumulate)
            minimised += [loss.detach() for loss in losses.values()]
            for name, value in terms.items():
                share = value.detach() / accumulate if accumulate > 1 else value.detach()
                sums[name] = sums[name] + share if part else share
        # Before the step: a term may be a weight itself, such as a learned sigma.
        decision = self.decide(minimised, self.optimiser.norms(), sums)
        self.optimiser.step(moment.learning_rate, *decision)
        state.average.update(moment.share)

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
        first_look = settled(state.update, settings.updates) and not settled(state.update - updates, settings.updates)
        with self.autocast:
            held_out_nats, importance_nats = self.held_out.measure(first_look or state.update == settings.updates)
        row = {
            "update": state.update,
            "images_seen": state.update * settings.batch,
            "loss_nats": loss,
            "rate_nats": means.pop("rate_nats"),
            "distortion_nats": means.pop("distortion_nats"),
            "val_loss_nats": held_out_nats,
            **({"sigma": math.exp(means.pop("log_sigma"))} if "log_sigma" in means else {}),
            "gradient_norm": norm,
            "learning_rate": learning_rate(settings, state.update - 1) * state.rate_scale,
            **means,
        }
        state.curve.append(row)
        self._watch_latents(vectors, importance_nats)
        if self.processes.first:
            memory = peak_memory_bytes(self.processes.device)
            self.bar.set_postfix_str(
                f"loss {loss:.0f} = rate {row['rate_nats']:.0f} + distortion {row['distortion_nats']:.0f} nats, "
                f"gradient {norm:.2g}, {speed:.0f} images/s, {memory / 2**30:.1f} GiB"
            )
            self.on_log({**row, "images_per_second": speed, "peak_memory_bytes": memory})
        if state.update % settings.checkpoint_every == 0 or state.update == settings.updates:
            self.recovery.keep()
        return ""

    def _watch_latents(self, vectors: dict[str, Tensor], importance_nats: float) -> None:
        state = self.state
        state.latents = sum(kl.numel() for kl in vectors.values())
        state.unused_latents = sum(int((kl < UNUSED_NATS).sum()) for kl in vectors.values())
        if state.collapse_told or not settled(state.update, self.settings.updates):
            return
        for name, kl in vectors.items():
            level = name.removeprefix(KL_UNITS).removeprefix("_")
            warning = collapse(f"{self.label}, level {level}" if level else self.label, kl, importance_nats)
            if warning and self.processes.first:
                print(warning, file=sys.stderr)
            state.collapse_told = state.collapse_told or bool(warning)
