"""Everything an accelerator is wanted for, in one call that needs torch, numpy and safetensors only.

    PYTHONPATH=src python -m bench.on_gpu --crops FOLDER --out $OUT [--only train64 train128 speed profile]
    PYTHONPATH=src python -m bench.on_gpu --smoke --out /tmp/out        on a processor, seconds, to see that it runs

FOLDER (kept out of git, such as data/aligned) holds aligned crops, `128.npy` or `64.npy`: N S S 3 uint8, and, if the
split matters, `splits.npy`: N uint8, 0 train, 1 val, 2 test; otherwise the last fifth is held out. 64 px crops are
made from 128 px ones where they are missing.

train64, train128: the pyramid level by level and the baselines, with sqrt(MSE) on the test rows at the posterior mean
and the seconds of each; `--images` is how many each level sees (4 M at 64 px: 12 M over three levels, the published
experiment). speed: images a second by batch, with and without the compiler, with data resident and streamed, beside
the bare step. profile: where the device's time goes. Results lie in OUT as Markdown, JSON and weights; every part is
written when it is done, so a call that runs out of time leaves the parts before it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bench.bare_box  # noqa: F401  (first: it stands in for what the box may lack)
from bench.loop_overhead import bare
from bench.results import keep, table
from bench.trainables import PLAIN, images_per_second, level_of, noise_images
from lapcvae.data.batches import PackedImages
from lapcvae.models.cascade import Cascade
from lapcvae.models.level import LevelCVAE
from lapcvae.models.scale import scale_of
from lapcvae.models.settings import PRESETS, ModelSettings
from lapcvae.models.storage import Description, save_level
from lapcvae.pyramid.laplacian import PyramidConfig
from lapcvae.pyramid.stored import StoredPyramid, read_pyramid, write_pyramid
from lapcvae.training.arrays import LevelArrays
from lapcvae.training.loop import train
from lapcvae.training.processes import Processes
from lapcvae.training.rebuild import calibrate_sigma, write_rebuilt
from lapcvae.training.settings import TrainingSettings
from lapcvae.training.trainable import LevelTraining

VECTOR = {"latent": "vector", "latent_size": 128}
BASELINES: dict[str, dict[str, Any]] = {"vae": PLAIN, "vae_matched": {"latent_size": 10, "width": 144}}


def crops(folder: Path | None, side: int, top: Path, count: int) -> tuple[StoredPyramid, dict[str, np.ndarray], Path]:
    """The pyramid of the crops of a side, in `top`; of smooth noise where no folder is given."""
    splits = None
    if folder is None:
        images = noise_images(count, side)
    elif (folder / f"{side}.npy").exists():
        images = np.load(folder / f"{side}.npy", mmap_mode="r")
    else:
        fine = np.load(folder / f"{2 * side}.npy", mmap_mode="r")
        images = np.empty((len(fine), side, side, 3), np.uint8)
        for i in range(0, len(fine), 4096):
            part = fine[i : i + 4096].reshape(-1, side, 2, side, 2, 3)
            images[i : i + 4096] = part.mean((2, 4)).round()
    if folder is not None and (folder / "splits.npy").exists():
        splits = [("train", "val", "test")[code] for code in np.load(folder / "splits.npy")]
    tenth = len(images) // 10
    splits = splits or ["train"] * (len(images) - 2 * tenth) + ["val"] * tenth + ["test"] * tenth
    path = top / f"pyramid{side}"
    write_pyramid(images, splits, PyramidConfig(), path)
    return *read_pyramid(path), path


def train_all(args: argparse.Namespace, side: int, device: torch.device, top: Path) -> None:
    """Train the pyramid and the baselines of a side."""
    start = time.perf_counter()
    stored, rows, folder = crops(args.crops, side, top, args.count)
    made = time.perf_counter() - start
    updates = max(3, args.images // args.batch)
    settings = TrainingSettings(
        updates=updates, batch=args.batch, log_interval=max(1, updates // 40), learning_rate=args.learning_rate
    )
    out: list[list[object]] = []
    levels: dict[int, LevelCVAE] = {}

    def fit(name: str, description: Description, arrays: LevelArrays) -> LevelCVAE:
        torch.manual_seed(0)
        level, began = description.build(), time.perf_counter()
        result = train(LevelTraining(level, arrays, "burt"), rows, settings, 0, Processes(device), name)
        calibrate_sigma(level, arrays, rows["train"][:20000], "burt", 0)
        save_level(level, description, args.out / f"{side}/{name}")
        (args.out / f"{side}/{name}/curve.json").write_text(json.dumps(result.curve))
        seconds, last = time.perf_counter() - began, result.curve[-1]
        parameters = sum(p.numel() for p in level.parameters()) / 1e6
        memory = result.peak_memory_bytes / 2**30
        out.append([name, parameters, updates * args.batch, result.images_per_second, seconds, last["rate_nats"],
                    255 * last["sigma"], memory])  # fmt: skip
        return level

    for k in range(stored.depth, 0, -1):
        settings_k = ModelSettings(**{**PRESETS["modern"], **args.small, **(VECTOR if k == stored.depth else {})})
        description = Description(
            k, stored.depth, stored.sides[k - 1], "burt", settings_k, scale_of(stored.statistics, k, stored.depth)
        )
        coarser = top / f"rebuilt{side}-{k + 1}"
        arrays = LevelArrays(PackedImages(folder / f"x{k}.npy", device))
        if k < stored.depth:
            packed = [PackedImages(coarser / f"{name}.npy", device) for name in ("image", "mean")]
            arrays = LevelArrays(arrays.images, *packed, float(levels[k + 1].log_sigma))
        levels[k] = fit(f"level{k}", description, arrays)
        if k > 1:
            began = time.perf_counter()
            rebuilt = top / f"rebuilt{side}-{k}"
            rebuilt.mkdir()
            write_rebuilt(levels[k], arrays, "burt", rebuilt)
            out.append([f"rebuilt{k}", 0.0, len(rows["train"]), 0.0, time.perf_counter() - began, 0.0, 0.0, 0.0])
    models = {"lapcvae": Cascade([levels[k] for k in sorted(levels)])}
    whole = stored.statistics["1"]
    scale = scale_of({"1": {**whole, "band_std": float(np.sqrt(np.mean(np.square(whole["std"]))))}}, 1, 1)
    for name, chosen in BASELINES.items():
        kind = ModelSettings(**{**PRESETS["modern"], **chosen, **args.small})
        arrays = LevelArrays(PackedImages(folder / "x1.npy", device))
        models[name] = Cascade([fit(name, Description(1, 1, side, "burt", kind, scale), arrays)])
    header = ["what", "M parameters", "images", "images/s", "seconds", "rate nats", "sigma of 255", "peak GiB"]
    scores = [[name, *errors(model.eval(), arrays.images, rows["test"])] for name, model in models.items()]
    pyramid_seconds = sum(float(str(row[4])) for row in out if str(row[0])[:5] in ("level", "rebui"))
    keep(f"on-gpu-train{side}", f"python -m bench.on_gpu --only train{side}", [
        f"{len(rows['train']):,} photographs to train on; pyramid in {made:.1f} s; the levels take "
        f"{pyramid_seconds:.0f} s together.",
        table(header, out),
        table(["model", "sqrt(MSE) mean", "std", "root of mean MSE", "test photographs"], scores),
    ], args.out)  # fmt: skip


@torch.no_grad()
def errors(model: Cascade, images: PackedImages, rows: np.ndarray) -> tuple[float, float, float, int]:
    """(mean and std of per-image sqrt(MSE) on 0-255, root of the mean MSE, images) at the posterior mean."""
    found = []
    for part in np.array_split(rows, -(-len(rows) // 256)):
        x = images.gather(part, np.zeros_like(part))
        rebuilt = model.reconstruct(x)[0].rebuilt.clamp(0, 1)
        found.append((255 * (rebuilt - x)).square().mean((1, 2, 3)).cpu())
    mse = torch.cat(found)
    return float(mse.sqrt().mean()), float(mse.sqrt().std()), float(mse.mean().sqrt()), len(rows)


def speed(args: argparse.Namespace, device: torch.device, top: Path) -> None:
    """Images a second of level 1 at 64 px by batch, compiler and kind of data."""
    stored, rows, folder = crops(args.crops, 64, top, args.count)
    out: list[list[object]] = []
    for batch in args.batches:
        base = bare(level_of(stored, folder, 1, device, **args.small), batch, args.steps, device)
        out.append([batch, "bare step, compiled where auto does", base, 1.0])
        for compiler in ("auto", "off"):
            for resident in (True, False) if device.type == "cuda" else (False,):
                settings = TrainingSettings(
                    updates=args.steps, batch=batch, log_interval=max(1, args.steps // 3), compile=compiler
                )
                trainable = level_of(stored, folder, 1, device, resident, **args.small)
                rate = images_per_second(trainable, rows, settings, device)
                out.append(
                    [batch, f"loop, compile {compiler}, {'resident' if resident else 'streamed'}", rate, rate / base]
                )
    keep("on-gpu-speed", "python -m bench.on_gpu --only speed", [
        table(["batch", "what", "images/s", "of the bare step"], out)
    ], args.out)  # fmt: skip


def profile(args: argparse.Namespace, device: torch.device, top: Path) -> None:
    """Where the time of level 1's loop goes."""
    from torch.profiler import ProfilerActivity

    stored, rows, folder = crops(args.crops, 64, top, args.count)
    trainable = level_of(stored, folder, 1, device, **args.small)
    settings = TrainingSettings(updates=args.steps, batch=args.batch, log_interval=args.steps)
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    images_per_second(trainable, rows, TrainingSettings(updates=9, batch=args.batch, log_interval=3), device)
    with torch.profiler.profile(activities=kinds, with_flops=True) as recorded:
        began = time.perf_counter()
        train(trainable, {**rows, "val": rows["val"][:0]}, settings, 0, Processes(device), "profile")
        seconds = time.perf_counter() - began
    averages = recorded.key_averages()
    flops = sum(event.flops for event in averages)
    order = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    keep("on-gpu-profile", "python -m bench.on_gpu --only profile", [
        f"{args.steps} updates of level 1, batch {args.batch}, in {seconds:.2f} s; "
        f"{flops / seconds / 1e12:.3f} Tflop/s in the convolutions and matrix products that the profiler counts",
        "```\n" + averages.table(sort_by=order, row_limit=25, max_name_column_width=60) + "\n```",
    ], args.out)  # fmt: skip


def main() -> None:
    """Run the parts that are asked for, one after another."""
    parser = argparse.ArgumentParser(description="what an accelerator is wanted for")
    parser.add_argument("--crops", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=["train64", "train128", "speed", "profile"])
    parser.add_argument("--images", type=int, default=4_000_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024])
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
    }
    for name in args.only:
        with tempfile.TemporaryDirectory() as top:
            parts[name](Path(top))


if __name__ == "__main__":
    main()
