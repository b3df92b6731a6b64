"""What only a GPU can tell of the loop, part by part; models are trained there by `bench.side_by_side --composed`.

    python -m bench.on_gpu --out FOLDER --only rates speed profile resume
    python -m bench.on_gpu --out FOLDER --only published --data FOLDER --params FILE
    python -m bench.on_gpu --smoke --out /tmp/out                       on a processor, seconds, to see that it runs

rates: images a second of the networks of the LFW profiles by `compile`.
speed: images a second of level 1 by batch, with and without the compiler, with data resident and streamed, beside the
bare step. profile: where the device's time goes, and how far it is from its limits. resume: how far a run that was
stopped and went on ends from one that was not, beside two runs that were not, and whether an update waits for the GPU.
published: the seconds of the whole published experiment, 4 M images a level, by the pipeline's own stages: FILE is
settings/published/paper.yaml as `bench.pack` leaves it, --data a folder with `pyramid` in it. The models stay in OUT.

But for the last, images are smooth noise: what is in them does not change the speed. Results lie in OUT, written anew
after every line, so a call that runs out of time leaves what it had.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bench.gpu_resume import resume
from bench.limits import Limits, against_limits, where_time_goes
from bench.loop_overhead import bare, bare_step
from bench.results import keep, table
from bench.trainables import PLAIN, baseline_of, images_per_second, level_of, noise_images, pyramid_of
from bench.trained import OURS, train
from lapcvae.config import read_params
from lapcvae.data.batches import PackedImages
from lapcvae.evaluation.trained import level_folders, training_cost
from lapcvae.models.cascade import Cascade
from lapcvae.pyramid.stored import StoredPyramid
from lapcvae.training.arrays import LevelArrays
from lapcvae.training.end_to_end import EndToEnd
from lapcvae.training.settings import Compile, TrainingSettings
from lapcvae.training.trainable import Trainable
from lapcvae.training.vae_gan import VaeGanTraining

# As profiles/lfw64.yaml, lfw128.yaml and lfw64_paper.yaml have them.
MODERN: dict[str, Any] = {"width": 96, "blocks": 2, "latent_size": 4}
PAPER = {"network": "plain", "width": 32, "latent": "vector", "latent_size": 64, "loop": "open"}
VAE = {"network": "published", "latent": "vector", "latent_size": 128, "draw": "prior"}
# name, side, level (0: a plain VAE of the image), settings, batch
NETWORKS: list[tuple[str, int, int, dict[str, Any], int]] = [
    ("plain VAE", 64, 0, PLAIN, 64),
    ("modern, level 1", 64, 1, MODERN, 128),
    ("vae_matched", 64, 0, {**MODERN, "latent_size": 12, "width": 176}, 128),
    ("paper, level 1", 64, 1, PAPER, 256),
    ("vae", 64, 0, VAE, 128),
    ("vae_gan", 64, 0, VAE, 128),
    ("end_to_end", 64, 1, MODERN, 128),
    ("modern, level 1", 128, 1, MODERN, 64),
    ("vae_matched", 128, 0, {**MODERN, "latent_size": 16, "width": 192}, 64),
    ("vae", 128, 0, VAE, 64),
]


def rates(args: argparse.Namespace, device: torch.device, top: Path) -> None:
    """Images a second of the profiles' networks."""
    out, began = list[list[object]](), time.perf_counter()
    for side in (64, 128):
        folder = top / f"pyramid{side}"
        stored, rows = pyramid_of(noise_images(args.count, side), folder)
        for name, wanted, k, settings, batch in NETWORKS:
            if wanted != side:
                continue
            plain = 0.0
            ways: list[Compile] = args.ways if device.type == "cuda" else ["off"]
            for way in ways:
                if time.perf_counter() - began > args.seconds:
                    return
                trainable = _network(name, stored, folder, k, device, {**settings, **args.small})
                steps = TrainingSettings(
                    updates=args.steps,
                    batch=min(batch, args.batch),
                    log_interval=max(1, args.steps // 3),
                    compile=way,
                )
                start = time.perf_counter()
                try:
                    rate = images_per_second(trainable, rows, steps, device)
                except Exception as error:  # one way that fails must not cost the others
                    print(f"{name}, {side} px, {way}: {type(error).__name__}: {error}")
                    continue
                plain = plain or rate
                out.append([name, side, batch, way, rate, rate / plain, time.perf_counter() - start])
                keep("on-gpu-rates", [table(
                    ["network", "px", "batch", "compile", "images/s", "of `off`", "seconds in all"], out
                )], args.out)  # fmt: skip
                del trainable
                gc.collect()


def _network(
    name: str, stored: StoredPyramid, folder: Path, k: int, device: torch.device, settings: dict[str, Any]
) -> Trainable:
    if name == "end_to_end":
        levels = [level_of(stored, folder, at, device, **settings) for at in range(1, stored.depth + 1)]
        cascade = Cascade([trained.level for trained in levels], stored.kind)
        return EndToEnd(cascade, LevelArrays(PackedImages(folder / "x1.npy", device)), 1.0)
    if k:
        return level_of(stored, folder, k, device, **settings)
    baseline = baseline_of(stored, folder, device, **settings)
    return VaeGanTraining(baseline.level, baseline.arrays) if name == "vae_gan" else baseline


def speed(args: argparse.Namespace, device: torch.device, top: Path) -> None:
    """Images a second of level 1 at 64 px by batch, compiler and kind of data."""
    stored, rows = pyramid_of(noise_images(args.count, 64), top / "pyramid")
    gpu, out = device.type == "cuda", list[list[object]]()
    for batch in args.batches:
        base = bare(level_of(stored, top / "pyramid", 1, device, **args.small), batch, args.steps, device, gpu)
        out.append([batch, "bare step" + ", compiled" * gpu, base, 1.0])
        for compiler in ("full", "off") if gpu else ("off",):
            for resident in (True, False):
                settings = TrainingSettings(
                    updates=args.steps,
                    batch=batch,
                    log_interval=max(1, args.steps // 3),
                    compile=compiler,
                    precision="bf16" if gpu else "fp32",
                )
                trainable = level_of(stored, top / "pyramid", 1, device, resident, **args.small)
                rate = images_per_second(trainable, rows, settings, device)
                data = "resident" if resident else "streamed"
                out.append([batch, f"loop, compile {compiler}, {data}", rate, rate / base])
                keep("on-gpu-speed", [table(["batch", "what", "images/s", "of the bare step"], out)], args.out)


def profile(args: argparse.Namespace, device: torch.device, top: Path) -> None:
    """Where the time of a bare step of each level goes, and how far it is from the device's limits."""
    stored, _ = pyramid_of(noise_images(args.count, 64), top / "pyramid")
    gpu, texts = device.type == "cuda", list[str]()
    limits = Limits.measured(device)
    for k in range(1, stored.depth + 1):
        rate = bare(level_of(stored, top / "pyramid", k, device, **args.small), args.batch, args.steps, device, gpu)
        level = level_of(stored, top / "pyramid", k, device, **args.small)
        step = bare_step(level, args.batch, device, gpu, compiled=False)
        step()
        texts += [f"Level {k}. {against_limits(step, args.batch, rate, limits)}", where_time_goes(step, device)]
        keep("on-gpu-profile", [
            limits.text(),
            "Rates are of the compiled step in bf16, operations and bytes of the one that is not compiled."
            if gpu else "Not compiled, in fp32.",
            *texts,
        ], args.out)  # fmt: skip


def published(args: argparse.Namespace, device: torch.device, _: Path) -> None:
    """The published experiment: three levels one after another, 4 M images each, in the preset `paper`."""
    params, start = read_params(args.params), time.perf_counter()
    for level in params["levels"].values():
        level["updates"] = args.images // params["training"]["batch"]
    train(args.out / "published", OURS, params, args.data)
    whole = time.perf_counter() - start
    folders = level_folders(args.out / "published" / "models")
    costs = [training_cost([folder]) for folder in reversed(folders)]
    lines: list[list[object]] = [
        [folder.name, cost["images_seen"], cost["seconds"], cost["images_seen"] / cost["seconds"]]
        for folder, cost in zip(reversed(folders), costs, strict=True)
    ]
    lines.append(["all, with what is done before and after", sum(cost["images_seen"] for cost in costs), whole,
                  statistics.harmonic_mean([cost["images_seen"] / cost["seconds"] for cost in costs])])  # fmt: skip
    keep("on-gpu-published", [
        f"Preset paper, {params['align']['size_px']} px, batch {params['training']['batch']}, on the photographs in "
        f"{args.data.name}.",
        table(["", "images", "seconds", "images/s in training"], lines),
    ], args.out)  # fmt: skip


def main() -> None:
    """Run the parts that are asked for, one after another."""
    parser = argparse.ArgumentParser(description="what only a GPU can tell")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=["rates", "speed", "profile", "resume"])
    parser.add_argument("--data", type=Path, help="for `published`")
    parser.add_argument("--params", type=Path, help="for `published`")
    parser.add_argument("--images", type=int, default=4_000_000, help="a level, for `published`")
    parser.add_argument("--seconds", type=float, default=600.0, help="after which `rates` begins nothing new")
    parser.add_argument("--ways", nargs="+", choices=["off", "graphs", "full"], default=["off", "graphs", "full"])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--compile", choices=["off", "graphs", "full"], default="graphs", help="for `resume`")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--count", type=int, default=4096, help="images of noise")
    parser.add_argument("--smoke", action="store_true", help="tiny networks and few steps, on a processor")
    args = parser.parse_args()
    args.small = {}
    if args.smoke:
        args.small, args.batch, args.batches, args.steps, args.count = {"width": 8, "blocks": 1}, 8, [8], 3, 64
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    parts = {part.__name__: part for part in (rates, speed, profile, resume, published)}
    for name in args.only:
        with tempfile.TemporaryDirectory() as top:
            parts[name](args, device, Path(top))


if __name__ == "__main__":
    main()
