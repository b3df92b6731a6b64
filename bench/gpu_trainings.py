"""Trainings of a pyramid and its baselines on a GPU box: for bench/on_gpu.py."""

from __future__ import annotations

import argparse
import json
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bench.bare_box  # noqa: F401  (first: it stands in for what the box may lack)
from bench.results import keep, table
from bench.trainables import PLAIN, noise_images
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
