"""Pyramid build and collapse against OpenCV, kornia and scikit-image, one thread and all, with the round-trip error.

    python -m bench.pyramid_speed [--peers FOLDER] [--sides 64 128 256]

--peers: a folder made with `pip install --target FOLDER --no-deps kornia kornia_rs`. All build a Laplacian pyramid
down to 16 px of fp32 images and collapse it again. OpenCV and scikit-image work image by image, so their threads are
those of one image (scikit-image has none). kornia builds Laplacian pyramids but has no collapse: the bands are added
to its own `pyrup`, as its users do. Each library is given the layout that is its own (B C H W, or H W C), and those
that take batches about 3 MB of images at a time. The rates are images a second, the best of several passes over 256
images. Where there is a GPU, those that can also work there, on all 256 images at once, which lie in its memory.
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

from bench.limits import Limits, wait
from bench.results import keep, table
from bench.trainables import noise_images
from lapcvae.pyramid.laplacian import build, collapse, level_sides

COUNT, PASSES = 256, 5


CPU = torch.device("cpu")
Run = Callable[[np.ndarray, int, torch.device], tuple[float, float, float]]


def best(work: Callable[[Any], object], items: Sequence[Any], device: torch.device = CPU) -> float:
    """Images a second of the fastest pass over the items, images or batches of them: 256 images."""
    seconds = []
    for _ in range(PASSES):
        start = time.perf_counter()
        for item in items:
            work(item)
        wait(device)
        seconds.append(time.perf_counter() - start)
    return COUNT / min(seconds)


def batches(images: np.ndarray, device: torch.device) -> tuple[Tensor, ...]:
    """B C H W parts: 64 images of 64 px, 4 of 256 px; on a GPU all at once."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)
    return x.split(max(1, 64 * 64**2 // images[0, ..., 0].size) if device.type == "cpu" else COUNT)


def ours(images: np.ndarray, levels: int, device: torch.device) -> tuple[float, float, float]:
    """(build, collapse in images a second, largest round-trip error)."""
    parts = batches(images, device)
    built = [build(part, levels) for part in parts]
    error = max(float((collapse(b) - part).abs().max()) for b, part in zip(built, parts, strict=True))
    return best(lambda p: build(p, levels), parts, device), best(collapse, built, device), error


def opencv(images: np.ndarray, levels: int, _: torch.device) -> tuple[float, float, float]:
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


def skimage(images: np.ndarray, levels: int, _: torch.device) -> tuple[float, float, float]:
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


def kornia(images: np.ndarray, levels: int, device: torch.device) -> tuple[float, float, float]:
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

    parts = batches(images, device)
    built = [down(part) for part in parts]
    error = max(float((up(b) - part).abs().max()) for b, part in zip(built, parts, strict=True))
    return best(down, parts, device), best(up, built, device), error


def near_the_limit(
    images: np.ndarray, levels: int, where: str, rates: tuple[float, float, float], limits: Limits
) -> str:
    """The bytes lapcvae has to move at these rates, beside the measured rate of a copy."""
    part = batches(images, CPU)[0]
    bands = build(part, levels)
    least = 4.0 * (part.numel() + sum(band.numel() for band in bands)) / len(part)
    shares = [
        f"{what} {least * rate / limits.bytes:.0%}" for what, rate in zip(("build", "collapse"), rates, strict=False)
    ]
    return (
        f"{images.shape[1]} px, {where}: at least {least / 1e6:.2f} MB an image; "
        f"of {limits.bytes / 1e9:.1f} GB/s in a copy: {', '.join(shares)}."
    )


def main() -> None:
    """Measure every library at every side, with one thread and with all."""
    parser = argparse.ArgumentParser(description="pyramid speed against other libraries")
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128, 256])
    arguments = parser.parse_args()
    runs: dict[str, Run] = {"lapcvae": ours, "OpenCV": opencv, "scikit-image": skimage}
    if arguments.peers:
        sys.path.append(str(arguments.peers))
        runs["kornia"] = kornia
    every = torch.get_num_threads()
    gpu = torch.cuda.is_available()
    out: list[list[object]] = []
    texts: list[str] = []
    for side in arguments.sides:
        images = np.ascontiguousarray(noise_images(COUNT, side)).astype(np.float32) / 255
        levels = len(level_sides(side, 16))
        for threads in sorted({1, every}):
            torch.set_num_threads(threads)
            cv2.setNumThreads(threads)
            limits = Limits.measured(CPU)
            found = {name: run(images, levels, CPU) for name, run in runs.items()}
            down, up, _ = found["OpenCV"]
            where = f"{threads} thread{'s' * (threads > 1)}"
            out += [
                [side, where, name, b, b / down, c, c / up, f"{error:.1e}"] for name, (b, c, error) in found.items()
            ]
            texts.append(near_the_limit(images, levels, where, found["lapcvae"], limits))
        if gpu:  # beside OpenCV's rate with all threads
            limits, there = Limits.measured(torch.device("cuda")), torch.device("cuda")
            found = {name: run(images, levels, there) for name, run in runs.items() if run in (ours, kornia)}
            out += [
                [side, "GPU", name, b, b / down, c, c / up, f"{error:.1e}"] for name, (b, c, error) in found.items()
            ]
            texts.append(near_the_limit(images, levels, "GPU", found["lapcvae"], limits))
        show(out, texts, arguments.sides)


def show(out: list[list[object]], texts: list[str], sides: Sequence[int]) -> None:
    """Keep what was found so far."""
    header = ["px", "where", "library", "build/s", "of OpenCV", "collapse/s", "of OpenCV", "round-trip error"]
    gpu = torch.cuda.is_available()
    keep("pyramid-speed" + "-gpu" * gpu + "".join(f"-{side}" for side in sides), [
        table(header, out),
        "lapcvae beside the limit of memory, of what has to move at least once: build reads the image and writes the "
        "bands, collapse the other way. A batch of 3 MB stays in the processor's cache, which is faster than that.",
        *["On the GPU beside OpenCV with all threads of the processor."] * gpu,
        *texts,
    ])  # fmt: skip


if __name__ == "__main__":
    main()
