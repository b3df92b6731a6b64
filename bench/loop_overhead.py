"""The loop against a bare step on tensors already resident: the aim is at most 3 % slower.

    python -m bench.loop_overhead [--updates 60] [--batch 64] [--levels 1 3]

The bare step: forward, loss, backward, clipping, AdamW, on one batch of fp32 images that is never changed, in the
arithmetic that is given (on processors fp32). The loop adds batches (data resident on the device, and streamed from the
mapped file), augmentation, noise, weight average, guards, running sums. Bare step and loops take turns, and a ratio is
the median of the turns' own ratios, above 1 where the loop is the faster.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bench.limits import Limits, against_limits, wait, where_time_goes
from bench.results import keep, table
from bench.trainables import images_per_second, level_of, noise_images, pyramid_of
from lapcvae.io.memory import held_memory
from lapcvae.training.settings import TrainingSettings
from lapcvae.training.trainable import LevelTraining


def bare_step(
    trainable: LevelTraining, batch: int, device: torch.device, bf16: bool, compiled: bool = True
) -> Callable[[], None]:
    """A step that does the least that training can do; on a GPU compiled and replayed, as `compile: full` would."""
    trainable.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    replayed = compiled and device.type == "cuda"
    if replayed:
        trainable.compile()
    trainable.train()
    side = trainable.level.side
    image = torch.rand(batch, side, side, 3, device=device)
    flips = torch.zeros(batch, dtype=torch.int64, device=device)
    half = torch.rand(batch, side // 2, side // 2, 3, device=device)
    packed = (image, flips) if trainable.level.coarsest else (image, flips, half, flips, half, flips)
    noise = tuple(torch.randn(batch, *shape, device=device) for shape in trainable.noise_shapes())
    parameters = [p for p in trainable.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(parameters, lr=1e-3, fused=True, capturable=replayed)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=bf16)

    def step() -> None:
        with autocast:
            terms = trainable(packed, noise)
        trainable.losses(terms, 0)["model"].backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)

    if not replayed:
        return step
    stream, graph = torch.cuda.Stream(device), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):  # in which libraries choose their kernels, and the compiler compiles
            step()
    with torch.cuda.graph(graph, stream=stream):
        step()

    def replay(_of: object = step) -> None:  # what the graph reads and writes has to live as long
        graph.replay()

    return replay


def bare(trainable: LevelTraining, batch: int, updates: int, device: torch.device, bf16: bool) -> float:
    """Images a second of the bare step, after a third of the updates."""
    step, start = bare_step(trainable, batch, device, bf16), 0.0
    with held_memory(device):
        for update in range(updates):
            if update == updates // 3:
                wait(device)
                start = time.perf_counter()
            step()
        wait(device)
    return (updates - updates // 3) * batch / (time.perf_counter() - start)


def main() -> None:
    """Measure levels of 64 px."""
    parser = argparse.ArgumentParser(description="what the loop adds to a bare step")
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 3])
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.type == "cuda"
    count, batch = arguments.updates, arguments.batch
    settings = TrainingSettings(
        updates=count,
        batch=batch,
        log_interval=max(1, count // 3),
        checkpoint_interval=count,
        precision="bf16" if gpu else "fp32",
        compile="full" if gpu else "off",
    )
    limits = Limits.measured(device)
    out: list[list[object]] = []
    texts: list[str] = []
    header = ["level", "what", "images/s", "of the bare step", "lowest", "highest"]
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top, "pyramid")
        stored, rows = pyramid_of(noise_images(2048, 64), folder)
        for k in arguments.levels:
            kinds = {"bare step": None, "loop, data resident": True, "loop, data streamed": False}
            rates: dict[str, list[float]] = {name: [] for name in kinds}
            for turn in range(-1, arguments.turns):  # one turn to warm up; who is first changes from turn to turn
                for name in sorted(kinds, reverse=turn % 2 == 0):
                    trainable = level_of(stored, folder, k, device, kinds[name], blocks=1)
                    if name == "bare step":
                        rate = bare(trainable, batch, count, device, gpu)
                    else:
                        rate = images_per_second(trainable, rows, settings, device)
                    rates[name] += [rate] * (turn >= 0)
                    print(f"level {k}, turn {turn}, {name}: {rate:,.0f} images/s", flush=True)  # in case it is cut off
            for name, values in rates.items():
                ratios = [rate / base for rate, base in zip(values, rates["bare step"], strict=True)]
                out.append([k, name, statistics.median(values), statistics.median(ratios), min(ratios), max(ratios)])
            step = bare_step(level_of(stored, folder, k, device, blocks=1), batch, device, gpu, compiled=False)
            step()
            rate = statistics.median(rates["bare step"])
            texts += [f"Level {k}, the bare step. {against_limits(step, batch, rate, limits)}"]
            texts += [where_time_goes(step, device)]
            name = "loop-overhead" + "-gpu" * gpu + "-level" + "".join(map(str, arguments.levels))
            keep(name, [table(header, out), limits.text(), *texts])


if __name__ == "__main__":
    main()
