"""One photograph from anywhere to a face as the models know it: aligned as the pipeline aligns, or taken as it is."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from lapcvae.config import PARAMS_FILE, load
from lapcvae.data.decode import DecodeConfig, Unreadable, decode
from lapcvae.data.detector import DetectorConfig
from lapcvae.data.judge import AlignConfig, judge
from lapcvae.data.landmarks import look
from lapcvae.data.manifest import Row
from lapcvae.data.reasons import REASONS
from lapcvae.data.template import CROP_LEFT, CROP_SIDE, CROP_TOP, HEIGHT_PX, WIDTH_PX
from lapcvae.data.warp import cut
from lapcvae.errors import SourceError


def open_face(path: Path, side: int, params: Path = PARAMS_FILE, aligned: bool = False) -> Tensor:
    """The face in a photograph: 1 3 side side fp32 on [0, 1], multiples of 1/255.

    The most central face is taken, by the settings in the file `params`. With `aligned` the photograph is a face
    already: a square one is only resized, one of 178 x 218 pixels is cut as CelebA's are.
    Raises `SourceError` for a file that is missing, no photograph, or without a face that can be aligned.
    """
    data = _read(path)
    decoding = load(DecodeConfig, "decode", params)
    if aligned:
        return _tensor(_resized(_decoded(path, data, replace(decoding, min_side_px=1)), side, path))
    config = replace(load(AlignConfig, "align", params), size_px=side)
    sight = look(data, hashlib.sha256(data).hexdigest(), decoding, load(DetectorConfig, "detector", params))
    row = Row(path.name, "file", "", sight.sha256, "accepted")
    (crop,) = judge([row], [sight], config, [False])
    if crop is None:
        raise SourceError(
            f"{path}: {row.reason}: {REASONS[row.reason]}. Choose another photograph, or, where it is an aligned face "
            "already, say so with --aligned"
        )
    return _tensor(cut(data, crop, side, decoding))


def open_picture(path: Path, params: Path = PARAMS_FILE) -> Tensor:
    """Any picture as it is: 1 3 H W fp32 on [0, 1]. Raises `SourceError` where it cannot be read."""
    return _tensor(_decoded(path, _read(path), replace(load(DecodeConfig, "decode", params), min_side_px=1)))


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise SourceError(f"{path}: no such file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None


def _decoded(path: Path, data: bytes, config: DecodeConfig) -> np.ndarray:
    try:
        return decode(data, config)
    except Unreadable as unreadable:
        raise SourceError(f"{path}: {unreadable.reason}: {REASONS[unreadable.reason]}") from None


def _resized(image: np.ndarray, side: int, path: Path) -> np.ndarray:
    height, width = image.shape[:2]
    if (width, height) == (WIDTH_PX, HEIGHT_PX):
        image = image[CROP_TOP : CROP_TOP + CROP_SIDE, CROP_LEFT : CROP_LEFT + CROP_SIDE]
    elif width != height:
        raise SourceError(
            f"{path}: is {width} x {height} pixels; an aligned face is square, or {WIDTH_PX} x {HEIGHT_PX} as CelebA's "
            "are. Leave --aligned out to have it aligned"
        )
    if len(image) == side:
        return image
    method = cv2.INTER_AREA if len(image) > side else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (side, side), interpolation=method), dtype=np.uint8)


def _tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).unsqueeze(0).float() / 255
