"""Everything an accelerator is wanted for, in one call that needs torch, numpy and safetensors only.

    PYTHONPATH=src python -m bench.on_gpu --crops FOLDER --out $OUT [--only train64 train128 speed profile]
    PYTHONPATH=src python -m bench.on_gpu --smoke --out /tmp/out        on a processor, seconds, to see that it runs

FOLDER (kept out of git, such as data/aligned) holds aligned crops, `128.npy` or `64.npy`: N S S 3 uint8, and, if the
split matters, `splits.npy`: N uint8, 0 train, 1 val, 2 test; otherwise the last fifth is held out. 64 px crops are
made from 128 px ones where they are missing.

train64, train128: the pyramid level by level, then the baselines, with sqrt(MSE) on the test rows at the posterior mean
and the seconds of each, reconstructions and samples as pictures; `--images` is how many each level sees (4 M at 64 px:
12 M over three levels, the published experiment; the aim is under ten minutes on one H200), `--batch` at how many a
step. `--compile off` and `--models lapcvae` shorten a call. speed: images a second by batch, with and without the
compiler, with data resident and streamed, beside the bare step. profile: where the device's time goes, and how far it
is from its limits. A call on a rented machine is ten minutes at most: ask for the parts one by one.

Results lie in OUT as Markdown, JSON, PNG and weights. They are written anew after every model and every line, so a call
that runs out of time leaves what it had.
"""

from __future__ import annotations

import argparse
import json
import struct
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bench.bare_box  # noqa: F401  (first: it stands in for what the box may lack)
from bench.limits import Limits, against_limits, where_time_goes
from bench.loop_overhead import bare, bare_step
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


def png(path: Path, picture: np.ndarray) -> None:
    """Write H W 3 uint8 as PNG: the box has no library for pictures."""
    height, width, _ = picture.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), picture.reshape(height, -1)], 1)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows.tobytes()))]
    with path.open("wb") as stream:
        stream.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in [*parts, (b"IEND", b"")]:
            stream.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))


def sheet(rows: list[torch.Tensor]) -> np.ndarray:
    """Rows of images (B 3 S S on [0, 1]) under each other, H W 3 uint8."""
    x = torch.stack(rows).clamp(0, 1).mul(255).round().byte().cpu()
    across, count, _, side, _ = x.shape
    return x.permute(0, 3, 1, 4, 2).reshape(across * side, count * side, 3).numpy()


class Trainings:
    """The models of one side, trained one after another, and the page that is written after each."""

    def __init__(self, args: argparse.Namespace, side: int, device: torch.device, top: Path) -> None:
        self.args, self.side, self.device, self.top = args, side, device, top
        self.stored, self.rows, self.folder = crops(args.crops, side, top, args.count)
        updates = max(3, args.images // args.batch)
        self.settings = TrainingSettings(
            updates=updates,
            batch=args.batch,
            log_interval=max(1, updates // 40),
            learning_rate=args.learning_rate,
            compile=args.compile,
        )
        self.lines: list[list[object]] = []
        self.scores: list[list[object]] = []
        self.pyramid_seconds = 0.0
        self.whole = PackedImages(self.folder / "x1.npy", device)

    def fit(self, name: str, description: Description, arrays: LevelArrays) -> LevelCVAE:
        """Train, save and note one model."""
        torch.manual_seed(0)
        level, began, settings = description.build(), time.perf_counter(), self.settings
        result = train(
            LevelTraining(level, arrays, "burt"),
            self.rows,
            settings,
            0,
            Processes(self.device),
            f"{self.side} px {name}",
        )
        calibrate_sigma(level, arrays, self.rows["train"][:20000], "burt", 0)
        save_level(level, description, self.args.out / f"{self.side}/{name}")
        (self.args.out / f"{self.side}/{name}/curve.json").write_text(json.dumps(result.curve))
        last, parameters = result.curve[-1], sum(p.numel() for p in level.parameters()) / 1e6
        self.lines.append([
            name, parameters, settings.updates * settings.batch, result.precision, result.images_per_second,
            time.perf_counter() - began, last["rate_nats"], 255 * last["sigma"], result.peak_memory_bytes / 2**30,
        ])  # fmt: skip
        return level

    def pyramid(self) -> None:
        """Every level, from what the coarser one rebuilt."""
        levels: dict[int, LevelCVAE] = {}
        began = time.perf_counter()
        for k in range(self.stored.depth, 0, -1):
            chosen = {**PRESETS["modern"], **self.args.small, **(VECTOR if k == self.stored.depth else {})}
            scale = scale_of(self.stored.statistics, k, self.stored.depth)
            description = Description(
                k, self.stored.depth, self.stored.sides[k - 1], "burt", ModelSettings(**chosen), scale
            )
            arrays = LevelArrays(PackedImages(self.folder / f"x{k}.npy", self.device))
            if k < self.stored.depth:
                image, mean = (
                    PackedImages(self.top / f"rebuilt{self.side}-{k + 1}/{name}.npy", self.device)
                    for name in ("image", "mean")
                )
                arrays = LevelArrays(arrays.images, image, mean, float(levels[k + 1].log_sigma.detach()))
            levels[k] = self.fit(f"level{k}", description, arrays)
            if k > 1:
                rebuilt = self.top / f"rebuilt{self.side}-{k}"
                rebuilt.mkdir()
                write_rebuilt(levels[k].eval(), arrays, "burt", rebuilt)
            self.pyramid_seconds = time.perf_counter() - began
            self.tell()
        self.score("lapcvae", Cascade([levels[k] for k in sorted(levels)]))

    def baseline(self, name: str) -> None:
        """A plain VAE of the whole image."""
        statistics = self.stored.statistics["1"]
        spread = float(np.sqrt(np.mean(np.square(statistics["std"]))))
        scale = scale_of({"1": {**statistics, "band_std": spread}}, 1, 1)
        chosen = ModelSettings(**{**PRESETS["modern"], **BASELINES[name], **self.args.small})
        description = Description(1, 1, self.side, "burt", chosen, scale)
        self.score(name, Cascade([self.fit(name, description, LevelArrays(self.whole))]))

    @torch.no_grad()
    def score(self, name: str, model: Cascade) -> None:
        """Errors and pictures of a whole model."""
        model.eval()
        self.scores.append([name, *errors(model, self.whole, self.rows["test"])])
        shown = self.rows["test"][:12]
        x = self.whole.gather(shown, np.zeros_like(shown))
        drawn = model.sample(len(shown), torch.Generator(self.device).manual_seed(0)).images[0]
        png(self.args.out / f"{self.side}/{name}.png", sheet([x, model.reconstruct(x)[0].rebuilt, drawn]))
        self.tell()

    def tell(self) -> None:
        """Write what there is."""
        header = [
            "what",
            "M parameters",
            "images",
            "in",
            "images/s",
            "seconds",
            "rate nats",
            "sigma of 255",
            "peak GiB",
        ]
        keep(f"on-gpu-train{self.side}", [
            f"{len(self.rows['train']):,} photographs to train on, batch {self.settings.batch}, compile "
            f"{self.settings.compile}. The levels so far, with what they rebuild, took {self.pyramid_seconds:.0f} s.",
            table(header, self.lines),
            table(["model", "sqrt(MSE) mean", "std", "root of mean MSE", "test photographs"], self.scores),
        ], self.args.out)  # fmt: skip


def train_all(args: argparse.Namespace, side: int, device: torch.device, top: Path) -> None:
    """Train the pyramid and the baselines of a side."""
    trainings = Trainings(args, side, device, top)
    for name in args.models:
        trainings.pyramid() if name == "lapcvae" else trainings.baseline(name)


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
    parser.add_argument("--only", nargs="+", default=["train64", "train128", "speed", "profile"])
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
    }
    for name in args.only:
        with tempfile.TemporaryDirectory() as top:
            parts[name](Path(top))


if __name__ == "__main__":
    main()
