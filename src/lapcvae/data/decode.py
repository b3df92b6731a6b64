"""Bytes of unknown origin to one upright 8-bit RGB image, or a reason why not.

The header is judged before anything is decoded, so that memory is bounded by `DecodeConfig` whatever a file claims.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image, PngImagePlugin

# Formats that photographs come in. Others that Pillow knows (PostScript, PDF, fonts) are not opened at all.
_WANTED = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
Image.init()  # registers the plugins; without it `open` knows only some of these
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY  # a long note costs no photograph; the sum stays bounded
FORMATS = tuple(name for name in _WANTED if name in Image.OPEN)

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Of what libjpeg complains about, what whole files are known for; all else is damage that shows.
_BORNE = ("extraneous bytes before marker", "unknown jfif revision", "unknown adobe color", "bad icc marker")
_FRAMES = (0xC0, 0xC1, 0xC2)  # markers: baseline, extended, progressive
# Segments before the frame that a plain JPEG may have: tables, comments, what programs leave but for EXIF, XMP, Adobe.
_SKIPPED = frozenset({0xC4, 0xCC, 0xDB, 0xDD, 0xFE, 0xE0, *range(0xE2, 0xEE), 0xEF})
_MAX_SCANS = 100  # of a progressive JPEG; honest ones have about ten, and each is a pass over the whole image
_MAX_PIXELS = 89_478_485  # above this Pillow takes any image for a bomb


@dataclass(frozen=True)
class DecodeConfig:
    """The `decode` section of params.yaml: what is refused before decoding."""

    max_pixels: int  # width times height
    min_side_px: int  # of the shorter side
    max_aspect: float  # longer over shorter side

    def __post_init__(self) -> None:
        if not 0 < self.max_pixels <= _MAX_PIXELS:
            raise ValueError(f"max_pixels must be above 0 and at most {_MAX_PIXELS}")
        if self.min_side_px < 1 or self.max_aspect < 1:
            raise ValueError("min_side_px and max_aspect must be at least 1")


class Unreadable(Exception):  # noqa: N818 - an outcome, not a failure of the program
    """A photograph cannot be used; `reason` is one of `reasons.REASONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(data: bytes, config: DecodeConfig) -> np.ndarray:
    """The first image in `data`, turned upright by its EXIF: uint8 (height, width, 3), RGB.

    Transparent parts are laid on white; 16-bit values keep their upper byte. Raises `Unreadable`.
    """
    if not data:
        raise Unreadable("empty")
    plain = _plain_jpeg(data)
    if plain:  # most photographs; opening them with Pillow takes as long as decoding them
        _check_size(*plain, config)
        _check_scans(data)
        with suppress(Exception):  # of a damaged one Pillow says better what is wrong
            return _jpeg(data)
    with _quiet():
        image = _open(data)
        _check_size(*image.size, config)
        if image.format in ("JPEG", "MPO"):
            _check_scans(data)
        try:
            return _turned(_pixels(data, image), _orientation(image))
        except Unreadable:
            raise
        except Exception as error:  # a decoder may fail in any way on a damaged file: that is the file's fault
            raise Unreadable(_blame(error)) from None


def decode_again(data: bytes, config: DecodeConfig, most: float) -> tuple[np.ndarray, int]:
    """The pixels of `decode`, for data that `decode` has taken before, and by how much they are reduced: 1, 2, 4 or 8.

    A plain JPEG is decoded at a half, a quarter or an eighth, which is quicker, where that is not more than `most`;
    a pixel then stands for so many each way. Where `most` is 1 or more, its halved colours are spread without
    interpolation, which a reduction hides. Only for data known to be whole: nothing is checked. Raises `Unreadable` as
    `decode` does.
    """
    if not _plain_jpeg(data):
        return decode(data, config), 1
    factor = next(f for f in (8, 4, 2, 1) if f <= max(1.0, most))
    if factor == 1:
        return np.asarray(simplejpeg.decode_jpeg(data, strict=False, fastupsample=most >= 1)), 1
    height, width = (-(-side // factor) for side in simplejpeg.decode_jpeg_header(data)[:2])
    small = np.asarray(simplejpeg.decode_jpeg(data, strict=False, min_height=height, min_width=width))
    return (small, factor) if small.shape[:2] == (height, width) else (decode(data, config), 1)


def _pixels(data: bytes, image: Image.Image) -> np.ndarray:
    if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
        return _jpeg(data)
    rgb = _rgb(image)
    rgb.load()
    return np.asarray(rgb)


def _jpeg(data: bytes) -> np.ndarray:
    """What Pillow would give, as both use libjpeg-turbo; but a third of the time, and damage is told."""
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, strict=True))
    except ValueError as problem:
        text = str(problem).lower()
        if not any(borne in text for borne in _BORNE):
            raise Unreadable("truncated" if "premature end of jpeg file" in text else "undecodable") from None
    return np.asarray(simplejpeg.decode_jpeg(data, strict=False))


def _plain_jpeg(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG of three 8-bit components without EXIF, XMP or Adobe's marker, by its headers alone.

    None for anything else.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    place = 2
    while place + 10 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return (width, height) if data[place + 4] == 8 and data[place + 9] == 3 and width and height else None
        if marker not in _SKIPPED:
            return None
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of every odd tag; only what it refuses matters here
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Unreadable("too_many_pixels") from None
    except Image.UnidentifiedImageError:
        raise Unreadable("not_an_image") from None
    except Exception as error:
        raise Unreadable(_blame(error)) from None


def _check_size(width: int, height: int, config: DecodeConfig) -> None:
    if width * height > config.max_pixels:
        raise Unreadable("too_many_pixels")
    if min(width, height) < config.min_side_px:
        raise Unreadable("too_small")
    if max(width, height) > config.max_aspect * min(width, height):
        raise Unreadable("extreme_aspect")


def _check_scans(data: bytes) -> None:
    if data.count(b"\xff\xda") > _MAX_SCANS:
        raise Unreadable("undecodable")


def _rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode in ("F", "LAB", "HSV"):
        raise Unreadable("unsupported_mode")
    if mode == "I" or mode.startswith("I;"):
        return Image.fromarray(_upper_byte(np.asarray(image))).convert("RGB")
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        clear = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    return image if mode == "RGB" else image.convert("RGB")


def _upper_byte(values: np.ndarray) -> np.ndarray:
    if values.min(initial=0) < 0 or values.max(initial=0) > 0xFFFF:
        raise Unreadable("unsupported_mode")
    return (values >> 8 if values.max(initial=0) > 0xFF else values).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF costs the orientation, not the photograph
        return 1


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation in _TURNS:
        pixels = np.asarray(Image.fromarray(pixels).transpose(_TURNS[orientation]))
    return np.ascontiguousarray(pixels)


def _blame(error: Exception) -> str:
    text = str(error).lower()
    if isinstance(error, EOFError) or "truncated" in text or "unexpected end" in text:
        return "truncated"
    return "undecodable"
