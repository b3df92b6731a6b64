"""Pyramid build and collapse against OpenCV, kornia and scikit-image, one thread and all, with the round-trip error.

    python -m bench.pyramid_speed [--peers FOLDER] [--sides 64 128 256]

--peers: a folder made with `pip install --target FOLDER --no-deps kornia kornia_rs`. All build a Laplacian pyramid
down to 16 px of fp32 images and collapse it again. OpenCV and scikit-image work image by image, so their threads are
those of one image (scikit-image has none). kornia builds Laplacian pyramids but has no collapse: the bands are added
to its own `pyrup`, as its users do. Each library is given the layout that is its own (B C H W, or H W C), and those
that take batches about 3 MB of images at a time. The rates are images a second, the best of several passes over 256
images.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from bench.limits import Limits
from bench.results import keep, table
from bench.trainables import noise_images
from lapcvae.pyramid.laplacian import build, collapse, level_sides

COUNT, PASSES = 256, 5


def best(work: Callable[[Any], object], items: Sequence[Any]) -> float:
    """Images a second of the fastest pass over the items, images or batches of them: 256 images."""
    seconds = []
    for _ in range(PASSES):
        start = time.perf_counter()
        for item in items:
            work(item)
        seconds.append(time.perf_counter() - start)
    return COUNT / min(seconds)


def batches(images: np.ndarray) -> tuple[Tensor, ...]:
    """B C H W parts: 64 images of 64 px, 4 of 256 px."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return x.split(max(1, 64 * 64**2 // images[0, ..., 0].size))


def ours(images: np.ndarray, levels: int) -> tuple[float, float, float]:
    """(build, collapse in images a second, largest round-trip error)."""
    parts = batches(images)
    built = [build(part, levels) for part in parts]
    error = max(float((collapse(b) - part).abs().max()) for b, part in zip(built, parts, strict=True))
    return best(lambda p: build(p, levels), parts), best(collapse, built), error


def opencv(images: np.ndarray, levels: int) -> tuple[float, float, float]:
    """cv2.pyrDown and pyrUp."""

    def down(image: np.ndarray) -> list[np.ndarray]:
        gaussian = [image]
        for _ in range(levels - 1):
            gaussian.append(cv2.pyrDown(gaussian[-1]))
        return [fine - cv2.pyrUp(coarse) for fine, coarse in pairwise(gaussian)] + [gaussian[-1]]

    def up(bands: list[np.ndarray]) -> np.ndarray:
        out = bands[-1]
        for band in bands[-2::-1]:
            out = cv2.pyrUp(out) + band
        return out

    built = [down(image) for image in images]
    error = max(float(np.abs(up(b) - image).max()) for b, image in zip(built, images, strict=True))
    return best(down, list(images)), best(up, built), error


def skimage(images: np.ndarray, levels: int) -> tuple[float, float, float]:
    """skimage.transform.pyramid_reduce and pyramid_expand."""
    from skimage.transform import pyramid_expand, pyramid_reduce

    def down(image: np.ndarray) -> list[np.ndarray]:
        gaussian = [image]
        for _ in range(levels - 1):
            gaussian.append(pyramid_reduce(gaussian[-1], channel_axis=-1))
        return [fine - pyramid_expand(coarse, channel_axis=-1) for fine, coarse in pairwise(gaussian)] + [gaussian[-1]]

    def up(bands: list[np.ndarray]) -> np.ndarray:
        out = bands[-1]
        for band in bands[-2::-1]:
            out = pyramid_expand(out, channel_axis=-1) + band
        return out

    some = images[:32]
    built = [down(image) for image in some]
    error = max(float(np.abs(up(b) - image).max()) for b, image in zip(built, some, strict=True))
    share = len(some) / COUNT
    return share * best(down, list(some)), share * best(up, built), error


def kornia(images: np.ndarray, levels: int) -> tuple[float, float, float]:
    """kornia.geometry.transform.build_laplacian_pyramid and pyrup."""
    from kornia.geometry.transform import build_pyramid, pyrup

    def down(x: Tensor) -> list[Tensor]:
        gaussian = build_pyramid(x, levels)
        return [fine - pyrup(coarse) for fine, coarse in pairwise(gaussian)] + [gaussian[-1]]

    def up(bands: list[Tensor]) -> Tensor:
        out = bands[-1]
        for band in bands[-2::-1]:
            out = pyrup(out) + band
        return out

    parts = batches(images)
    built = [down(part) for part in parts]
    error = max(float((up(b) - part).abs().max()) for b, part in zip(built, parts, strict=True))
    return best(down, parts), best(up, built), error


def near_the_limit(
    images: np.ndarray, levels: int, threads: int, rates: tuple[float, float, float], limits: Limits
) -> str:
    """The bytes lapcvae has to move at these rates, beside the measured rate of a copy."""
    part = batches(images)[0]
    bands = build(part, levels)
    least = 4.0 * (part.numel() + sum(band.numel() for band in bands)) / len(part)
    shares = [
        f"{what} {least * rate / limits.bytes:.0%}" for what, rate in zip(("build", "collapse"), rates, strict=False)
    ]
    return (
        f"{images.shape[1]} px, {threads} thread{'s' * (threads > 1)}: at least {least / 1e6:.2f} MB an image; "
        f"of {limits.bytes / 1e9:.1f} GB/s in a copy: {', '.join(shares)}."
    )


def main() -> None:
    """Measure every library at every side, with one thread and with all."""
    parser = argparse.ArgumentParser(description="pyramid speed against other libraries")
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128, 256])
    arguments = parser.parse_args()
    runs: dict[str, Callable[[np.ndarray, int], tuple[float, float, float]]] = {
        "lapcvae": ours,
        "OpenCV": opencv,
        "scikit-image": skimage,
    }
    if arguments.peers:
        sys.path.append(str(arguments.peers))
        runs["kornia"] = kornia
    every = torch.get_num_threads()
    device = torch.device("cpu")
    out: list[list[object]] = []
    texts: list[str] = []
    for side in arguments.sides:
        images = np.ascontiguousarray(noise_images(COUNT, side)).astype(np.float32) / 255
        levels = len(level_sides(side, 16))
        for threads in sorted({1, every}):
            torch.set_num_threads(threads)
            cv2.setNumThreads(threads)
            limits = Limits.measured(device)
            found = {name: run(images, levels) for name, run in runs.items()}
            down, up, _ = found["OpenCV"]
            out += [
                [side, threads, name, b, b / down, c, c / up, f"{error:.1e}"] for name, (b, c, error) in found.items()
            ]
            texts.append(near_the_limit(images, levels, threads, found["lapcvae"], limits))
    header = ["px", "threads", "library", "build/s", "of OpenCV", "collapse/s", "of OpenCV", "round-trip error"]
    keep("pyramid-speed" + "".join(f"-{side}" for side in arguments.sides), [
        table(header, out),
        "lapcvae beside the limit of memory, of what has to move at least once: build reads the image and writes the "
        "bands, collapse the other way. A batch of 3 MB stays in the processor's cache, which is faster than that.",
        *texts,
    ])  # fmt: skip


if __name__ == "__main__":
    main()
