"""Everything an accelerator is wanted for, in one call that needs torch, numpy and safetensors only.

    PYTHONPATH=src python -m bench.on_gpu --crops FOLDER --out $OUT [--only train64 train128 speed profile resume]
    PYTHONPATH=src python -m bench.on_gpu --smoke --out /tmp/out        on a processor, seconds, to see that it runs

FOLDER (kept out of git, such as data/aligned) holds aligned crops, `128.npy` or `64.npy`: N S S 3 uint8, and, if the
split matters, `splits.npy`: N uint8, 0 train, 1 val, 2 test; otherwise the last fifth is held out. 64 px crops are
made from 128 px ones where they are missing.

train64, train128: the pyramid level by level, then the baselines, with sqrt(MSE) on the test rows at the posterior mean
and the seconds of each, reconstructions and samples as pictures; `--images` is how many each level sees (4 M at 64 px:
12 M over three levels, the published experiment; the aim is under ten minutes on one H200), `--batch` at how many a
step. `--compile off` and `--models lapcvae` shorten a call. speed: images a second by batch, with and without the
compiler, with data resident and streamed, beside the bare step. profile: where the device's time goes, and how far it
is from its limits. resume: how far a run that was stopped and went on ends from one that was not, beside two runs that
were not, and whether an update waits for the GPU. Where a call may take ten minutes at most, ask for parts one by one.

Results lie in OUT as Markdown, JSON, PNG and weights. They are written anew after every model and every line, so a call
that runs out of time leaves what it had.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

import bench.bare_box  # noqa: F401  (first: it stands in for what the box may lack)
from bench.gpu_resume import resume
from bench.gpu_trainings import BASELINES, crops, train_all
from bench.limits import Limits, against_limits, where_time_goes
from bench.loop_overhead import bare, bare_step
from bench.results import keep, table
from bench.trainables import images_per_second, level_of
from lapcvae.training.settings import TrainingSettings


def speed(args: argparse.Namespace, device: torch.device, top: Path) -> None:
    """Images a second of level 1 at 64 px by batch, compiler and kind of data."""
    stored, rows, folder = crops(args.crops, 64, top, args.count)
    gpu, out = device.type == "cuda", list[list[object]]()
    for batch in args.batches:
        base = bare(level_of(stored, folder, 1, device, **args.small), batch, args.steps, device, gpu)
        out.append([batch, "bare step" + ", compiled" * gpu, base, 1.0])
        for compiler in ("auto", "off") if gpu else ("off",):
            for resident in (True, False):
                settings = TrainingSettings(
                    updates=args.steps,
                    batch=batch,
                    log_interval=max(1, args.steps // 3),
                    compile=compiler,
                    precision="bf16" if gpu else "fp32",
                )
                trainable = level_of(stored, folder, 1, device, resident, **args.small)
                rate = images_per_second(trainable, rows, settings, device)
                data = "resident" if resident else "streamed"
                out.append([batch, f"loop, compile {compiler}, {data}", rate, rate / base])
                keep("on-gpu-speed", [table(["batch", "what", "images/s", "of the bare step"], out)], args.out)


def profile(args: argparse.Namespace, device: torch.device, top: Path) -> None:
    """Where the time of a bare step of level 1 goes, and how far it is from the device's limits."""
    stored, _, folder = crops(args.crops, 64, top, args.count)
    gpu, texts = device.type == "cuda", list[str]()
    limits = Limits.measured(device)
    for k in range(1, stored.depth + 1):
        rate = bare(level_of(stored, folder, k, device, **args.small), args.batch, args.steps, device, gpu)
        step = bare_step(level_of(stored, folder, k, device, **args.small), args.batch, device, gpu, compiled=False)
        step()
        texts += [f"Level {k}. {against_limits(step, args.batch, rate, limits)}", where_time_goes(step, device)]
        keep("on-gpu-profile", [
            limits.text(),
            "Rates are of the compiled step in bf16, operations and bytes of the one that is not compiled."
            if gpu else "Not compiled, in fp32.",
            *texts,
        ], args.out)  # fmt: skip


def main() -> None:
    """Run the parts that are asked for, one after another."""
    parser = argparse.ArgumentParser(description="what an accelerator is wanted for")
    parser.add_argument("--crops", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=["train64", "train128", "speed", "profile", "resume"])
    parser.add_argument("--images", type=int, default=4_000_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--models", nargs="+", default=["lapcvae", *BASELINES], choices=["lapcvae", *BASELINES])
    parser.add_argument("--compile", choices=["auto", "on", "off"], default="auto")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--count", type=int, default=4096, help="images of noise, where no crops are given")
    parser.add_argument("--smoke", action="store_true", help="tiny networks and few steps, on a processor")
    args = parser.parse_args()
    args.small = {}
    if args.smoke:
        args.small, args.images, args.batch, args.batches = {"width": 8, "blocks": 1}, 24, 8, [8]
        args.steps, args.count = 3, 64
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    parts = {
        "train64": lambda top: train_all(args, 64, device, top),
        "train128": lambda top: train_all(args, 128, device, top),
        "speed": lambda top: speed(args, device, top),
        "profile": lambda top: profile(args, device, top),
        "resume": lambda top: resume(args, device, top),
    }
    for name in args.only:
        with tempfile.TemporaryDirectory() as top:
            parts[name](Path(top))


if __name__ == "__main__":
    main()
