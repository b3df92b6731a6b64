"""Photographs of every awkward kind, each made from one real face, with what must become of it."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from PIL.PngImagePlugin import PngInfo

OK = ""


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of `image` as a file of that kind."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def with_exif(image: Image.Image, orientation: int, note: str = "") -> bytes:
    """A JPEG whose EXIF says how it is turned, with a note of any length."""
    return encode(image, "JPEG", quality=95, exif=_exif(orientation, note))


def _exif(orientation: int, note: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = note
    return exif.tobytes()


def note(text: str) -> PngInfo:
    """A compressed comment in a PNG."""
    info = PngInfo()
    info.add_text("Comment", text, zip=True)
    return info


def deep(image: Image.Image, kind: str) -> bytes:
    """`image` with 16 bits a channel, which Pillow cannot write."""
    wide = (np.asarray(image)[..., ::-1].astype(np.uint16) << 8) + 7
    return cv2.imencode(f".{kind}", wide)[1].tobytes()


def cut_and_closed(face: bytes) -> bytes:
    """A JPEG that lost its second half and was given an end mark: what is left decodes, the rest is grey."""
    return face[: len(face) // 2] + b"\xff\xd9"


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims any size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def turned_for(orientation: int, upright: Image.Image) -> Image.Image:
    """The stored pixels which, turned as EXIF `orientation` says, are `upright`."""
    undo = {
        1: lambda i: i,
        2: ImageOps.mirror,
        3: lambda i: i.rotate(180),
        4: ImageOps.flip,
        5: lambda i: i.transpose(Image.Transpose.TRANSPOSE),
        6: lambda i: i.transpose(Image.Transpose.ROTATE_90),
        7: lambda i: i.transpose(Image.Transpose.TRANSVERSE),
        8: lambda i: i.transpose(Image.Transpose.ROTATE_270),
    }
    return undo[orientation](upright)


def readable(face: bytes) -> dict[str, bytes]:
    """Files that hold the same upright face in other forms: all must be accepted."""
    image = Image.open(io.BytesIO(face)).convert("RGB")
    grey = image.convert("L")
    wide = (np.asarray(grey).astype(np.uint16) << 8) + 7
    clear = image.copy()
    clear.putalpha(255)
    big = image.resize((2000, 2000), Image.Resampling.BICUBIC)
    files = {
        "jpeg.jpg": face,
        "no_extension": face,
        "wrong_extension.png": face,
        "text_extension.txt": face,
        "png.png": encode(image),
        "webp.webp": encode(image, "WEBP"),
        "bmp.bmp": encode(image, "BMP"),
        "tiff.tif": encode(image, "TIFF"),
        "ppm.ppm": encode(image, "PPM"),
        "jpeg2000.jp2": encode(image, "JPEG2000"),
        "grey.jpg": encode(grey, "JPEG"),
        "grey16.png": encode(Image.fromarray(wide)),
        "grey16.tif": encode(Image.fromarray(wide), "TIFF"),
        "grey_alpha.png": encode(clear.convert("LA")),
        "colour16.png": deep(image, "png"),
        "colour16.tif": deep(image, "tif"),
        "palette.png": encode(image.quantize(256)),
        "palette.gif": encode(image, "GIF"),
        "palette_clear.png": encode(image.quantize(255), transparency=255),
        "alpha.png": encode(clear),
        "cmyk.jpg": encode(image.convert("CMYK"), "JPEG", quality=95),
        "cmyk.tif": encode(image.convert("CMYK"), "TIFF"),
        "ycbcr.tif": encode(image.convert("YCbCr"), "TIFF"),
        "rgb_inside.jpg": encode(image, "JPEG", quality=95, keep_rgb=True),
        "progressive.jpg": encode(image, "JPEG", progressive=True, quality=95),
        "animated.gif": encode(image, "GIF", save_all=True, append_images=[image.rotate(90)] * 3),
        "animated.webp": encode(image, "WEBP", save_all=True, append_images=[image.rotate(90)] * 3),
        "animated.png": encode(image, save_all=True, append_images=[image.rotate(90)] * 3),
        "two_images.mpo": encode(image, "MPO", save_all=True, append_images=[image.rotate(90)], quality=95),
        "pages.tif": encode(image, "TIFF", save_all=True, append_images=[image.rotate(90)] * 3),
        "huge_exif.jpg": with_exif(image, 1, "x" * 60_000),
        "huge_exif.png": encode(image, exif=_exif(1, "x" * 3_000_000)),
        "huge_exif.webp": encode(image, "WEBP", exif=_exif(1, "x" * 3_000_000)),
        "huge_note.png": encode(image, pnginfo=note("x" * 3_000_000)),
        "large.jpg": encode(big, "JPEG"),
        "trailing.jpg": face + b"\0" * 5000,
        "icc.jpg": encode(image, "JPEG", icc_profile=b"not a profile", quality=95),
        "broken_exif.jpg": encode(image, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", quality=95),
    }
    for orientation in range(1, 9):
        files[f"exif{orientation}.jpg"] = with_exif(turned_for(orientation, image), orientation)
    return files


def unreadable(face: bytes) -> dict[str, tuple[bytes, str]]:
    """Files that hold no usable photograph, with the reason that each must be rejected for."""
    image = Image.open(io.BytesIO(face)).convert("RGB")
    png = encode(image)
    noise = np.random.default_rng(0)
    floats = np.asarray(image.convert("L")).astype(np.float32)
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    return {
        "truncated.jpg": (face[: len(face) // 2], "truncated"),
        "truncated.png": (png[: len(png) // 2], "truncated"),
        "only_a_header.jpg": (face[:20], "not_an_image"),
        "bit_flipped.png": (bytes(flipped), "undecodable"),
        "cut_and_closed.jpg": (cut_and_closed(face), "undecodable"),
        "html.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not_an_image"),
        "text.jpg": (b"not a photograph\n" * 100, "not_an_image"),
        "random.jpg": (noise.bytes(5000), "not_an_image"),
        "svg.jpg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not_an_image"),
        "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 250 250\n", "not_an_image"),
        "bomb.png": (png_claiming(60_000, 60_000), "too_many_pixels"),
        "over_large.png": (png_claiming(9000, 9000), "too_many_pixels"),
        "one_pixel.png": (encode(Image.new("RGB", (1, 1))), "too_small"),
        "tiny.png": (encode(image.resize((20, 20))), "too_small"),
        "wide.png": (encode(Image.new("RGB", (4000, 40))), "extreme_aspect"),
        "tall.png": (encode(Image.new("RGB", (40, 4000))), "extreme_aspect"),
        "lab.tif": (encode(image.convert("LAB"), "TIFF"), "unsupported_mode"),
        "float.tif": (encode(Image.fromarray(floats), "TIFF"), "unsupported_mode"),
    }


def faceless(face: bytes, other: bytes) -> dict[str, tuple[bytes, set[str]]]:
    """Photographs that decode but show no usable face, with the reasons they may be rejected for."""
    image = Image.open(io.BytesIO(face)).convert("RGB")
    noise = np.random.default_rng(0).integers(0, 256, (250, 250, 3), dtype=np.uint8)
    half = Image.new("RGB", (250, 250), "white")
    half.paste(image.crop((125, 0, 250, 250)), (0, 0))
    unusable = {"no_face", "poor_fit", "turned", "outside_frame", "small_face", "flat"}
    return {
        "flat.png": (encode(Image.new("RGB", (250, 250), (90, 90, 90))), {"no_face"}),
        "noise.png": (encode(Image.fromarray(noise)), {"no_face", "poor_fit"}),
        "landscape.png": (encode(image.filter(ImageFilter.GaussianBlur(40))), {"no_face"}),
        "upside_down.png": (encode(image.rotate(180)), unusable),
        "sideways.png": (encode(image.rotate(90)), unusable),
        "half.png": (encode(half), unusable),
        "one_bit.png": (encode(Image.new("1", (250, 250))), {"no_face"}),
        "far_away.png": (encode(_far(other)), {"no_face", "small_face"}),
    }


def painted() -> bytes:
    """A face drawn with a few ellipses."""
    image = Image.new("RGB", (250, 250), (200, 220, 255))
    draw = ImageDraw.Draw(image)
    draw.ellipse((75, 55, 175, 195), fill=(240, 200, 170), outline="black")
    for x in (105, 145):
        draw.ellipse((x - 8, 105, x + 8, 115), fill="white", outline="black")
        draw.ellipse((x - 3, 107, x + 3, 113), fill="black")
    draw.line((125, 115, 120, 140, 130, 140), fill="black", width=2)
    draw.arc((105, 140, 145, 170), 20, 160, fill="red", width=4)
    return encode(image)


def _far(face: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(face)).convert("RGB")
    canvas = Image.new("RGB", (1000, 1000), (120, 130, 120))
    canvas.paste(image.resize((60, 60)), (470, 470))
    return canvas
