"""Packs faces and parameters into a folder that is small enough to be carried to a GPU box.

    python -m bench.pack --data FOLDER --out packed [--quality 83]      here: 35 MB for the 12,077 faces of LFW
    python -m bench.pack --unpack packed --out FOLDER                   there: FOLDER/lfw128 and FOLDER/lfw64

--data: what `dvc repro pyramid` left for crops of 128 px: a folder with `pyramid` and `aligned` in it. The crops go
into AVIF mosaics, which loses a little: the error is printed. Those of 64 px are made from them by averaging.
`settings/lfw64` and `lfw128` have the parameters of each model as the profiles of these names compose them, for
`bench.side_by_side --composed`.
"""

from __future__ import annotations

import argparse
import lzma
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from bench.side_by_side import MODELS
from bench.trained import settings_of
from lapcvae.pyramid.laplacian import PyramidConfig
from lapcvae.pyramid.stored import SPLITS, write_pyramid

SIDE, ACROSS = 128, 16
AT_ONCE = ACROSS**2
# What a short training needs otherwise than a profile's long one; and the published experiment: 4 M images a level.
SHORT = ["training.warmup_updates=200", "training.ema_half_life_images=10000", "evaluation.distance_images=1000"]
SETTINGS = {
    "lfw64": ("lfw64", SHORT),
    "lfw128": ("lfw128", [*SHORT, "training.batch=64", "training.log_interval=50",
                          "baselines.vae_gan.training.learning_rate=0.0006"]),
    "published": ("lfw64", ["training.batch=256", "training.log_interval=500"]),
}  # fmt: skip


def mosaic(faces: np.ndarray) -> np.ndarray:
    """H W 3 of up to `AT_ONCE` faces, N S S 3; what is left over is black."""
    whole = np.zeros((AT_ONCE, SIDE, SIDE, 3), np.uint8)
    whole[: len(faces)] = faces
    rows = whole.reshape(ACROSS, ACROSS, SIDE, SIDE, 3).transpose(0, 2, 1, 3, 4)
    return rows.reshape(ACROSS * SIDE, ACROSS * SIDE, 3)


def faces_of(picture: np.ndarray) -> np.ndarray:
    """The faces of a mosaic, N S S 3."""
    rows = picture.reshape(ACROSS, SIDE, ACROSS, SIDE, 3).transpose(0, 2, 1, 3, 4)
    return rows.reshape(AT_ONCE, SIDE, SIDE, 3)


def pack(data: Path, out: Path, quality: int) -> None:
    """Write the folder."""
    crops = np.load(data / "pyramid" / "x1.npy", mmap_mode="r")
    errors = []
    (out / "crops").mkdir(parents=True, exist_ok=True)
    for start in range(0, len(crops), AT_ONCE):
        part, path = crops[start : start + AT_ONCE], out / "crops" / f"{start:06d}.avif"
        Image.fromarray(mosaic(part)).save(path, quality=quality, subsampling="4:4:4", speed=4)
        again = faces_of(np.asarray(Image.open(path).convert("RGB")))[: len(part)]
        errors.append(np.sqrt(np.square(again.astype(float) - part).mean((1, 2, 3))))
    (out / "splits.npy").write_bytes((data / "pyramid" / "splits.npy").read_bytes())
    (out / "manifest.csv.xz").write_bytes(lzma.compress((data / "aligned" / "manifest.csv").read_bytes()))
    for name, (profile, changes) in SETTINGS.items():
        folder = out / "settings" / name
        folder.mkdir(parents=True, exist_ok=True)
        for model in MODELS:
            params = settings_of(profile + "_paper" * (model == "paper"), changes)
            (folder / f"{model}.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    size = sum(path.stat().st_size for path in out.rglob("*"))
    print(f"{len(crops)} faces, {size / 1e6:.1f} MB; sqrt(MSE) of a face {np.concatenate(errors).mean():.2f} of 255")


def unpack(packed: Path, out: Path) -> None:
    """Write the pyramids of 128 and 64 px and their manifests, as the pipeline's stages leave them."""
    codes = np.load(packed / "splits.npy")
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in sorted((packed / "crops").iterdir())]
    crops = np.concatenate([faces_of(picture) for picture in pictures])[: len(codes)]
    for side in (SIDE, SIDE // 2):
        if side < SIDE:
            crops = crops.reshape(-1, side, 2, side, 2, 3).mean((2, 4), dtype=np.float32).round().astype(np.uint8)
        folder = out / f"lfw{side}"
        (folder / "aligned").mkdir(parents=True, exist_ok=True)
        (folder / "aligned" / "manifest.csv").write_bytes(lzma.decompress((packed / "manifest.csv.xz").read_bytes()))
        write_pyramid(crops, [SPLITS[code] for code in codes], PyramidConfig(), folder / "pyramid")


def main() -> None:
    """Pack or unpack."""
    parser = argparse.ArgumentParser(prog="python -m bench.pack", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--unpack", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quality", type=int, default=83)
    given = parser.parse_args()
    if given.unpack:
        unpack(given.unpack, given.out)
    else:
        pack(given.data, given.out, given.quality)


if __name__ == "__main__":
    main()
