"""Every form of a photograph reads as the same upright RGB image; everything else is refused with its reason."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lapcvae.data.decode import DecodeConfig, Unreadable, _jpeg, decode, decode_again
from lapcvae.data.reasons import REASONS
from tests.data import made

CONFIG = DecodeConfig(max_pixels=50_000_000, min_side_px=32, max_aspect=8.0)


@pytest.fixture(scope="module")
def face(faces: dict[str, bytes]) -> bytes:
    return next(iter(faces.values()))


def test_every_form_reads_as_the_same_picture(face: bytes) -> None:
    upright = np.asarray(Image.open(io.BytesIO(face)).convert("RGB")).astype(float)
    for name, data in made.readable(face).items():
        pixels = decode(data, CONFIG)
        assert pixels.dtype == np.uint8, name
        assert pixels.flags.c_contiguous, name
        if name == "large.jpg":
            assert pixels.shape == (2000, 2000, 3)
            continue
        assert pixels.shape == (250, 250, 3), name
        wanted = upright.mean(2, keepdims=True) if "grey" in name else upright
        assert np.abs(pixels - wanted).mean() < (12 if "grey" in name else 6), name


def test_what_is_no_photograph_is_refused_with_its_reason(face: bytes) -> None:
    for name, (data, reason) in made.unreadable(face).items():
        with pytest.raises(Unreadable) as refused:
            decode(data, CONFIG)
        assert (name, refused.value.reason) == (name, reason)
        assert reason in REASONS


def test_a_jpeg_of_thousands_of_scans_is_refused_before_decoding(face: bytes) -> None:
    progressive = made.encode(Image.open(io.BytesIO(face)), "JPEG", progressive=True)
    last = progressive.rindex(b"\xff\xda")
    bomb = progressive[:last] + progressive[last:-2] * 5000 + progressive[-2:]
    assert decode(progressive, CONFIG).shape == (250, 250, 3)
    with pytest.raises(Unreadable, match="undecodable"):
        decode(bomb, CONFIG)


def test_damage_inside_a_jpeg_is_seen_where_its_decoder_stumbles(face: bytes) -> None:
    # Most flips leave a JPEG that reads: it has no checksum. One that makes a marker of data ends them too early.
    for place in range(1000, len(face) - 10, 97):
        data = bytearray(face)
        data[place : place + 2] = b"\xff\x07"
        with pytest.raises(Unreadable, match="undecodable"):
            decode(bytes(data), CONFIG)


def test_bytes_too_many_cost_no_photograph(face: bytes) -> None:
    stuffed = face[:-2] + bytes(7) + face[-2:]  # "extraneous bytes before marker 0xd9": cameras write such files
    assert np.array_equal(decode(stuffed, CONFIG), decode(face, CONFIG))


def test_one_bit_is_black_and_white(face: bytes) -> None:
    image = Image.open(io.BytesIO(face)).convert("1")
    for data in (made.encode(image), made.encode(image, "TIFF", compression="group4"), made.encode(image, "BMP")):
        pixels = decode(data, CONFIG)
        assert np.array_equal(pixels[..., 0] > 0, np.asarray(image))
        assert set(np.unique(pixels)) == {0, 255}


def test_a_plain_photograph_is_what_pillow_makes_of_it(faces: dict[str, bytes]) -> None:
    for data in list(faces.values())[:10]:
        assert np.array_equal(decode(data, CONFIG), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_a_size_that_only_looks_like_one_hides_no_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    # A marker that has no length, then a comment. Who takes the next bytes for a length, and skips so many, goes on
    # within the comment, where a small frame stands; a decoder would skip the comment and find the large one.
    begun: list[int] = []
    monkeypatch.setattr("lapcvae.data.decode._jpeg", lambda data: begun.append(len(data)) or _jpeg(data))
    large = made.encode(Image.new("RGB", (9000, 9000)), "JPEG")
    frame = b"\xff\xc0\x00\x11\x08\x00\x40\x00\x40\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    for marker in (b"\xff\xd0", b"\xff\x01"):
        hidden = marker + b"\x00\x06" + b"\xff\xfe" + (len(frame) + 2).to_bytes(2, "big") + frame
        with pytest.raises(Unreadable):
            decode(large[:2] + hidden + large[2:], CONFIG)
    assert not begun


def test_no_bytes_are_refused() -> None:
    with pytest.raises(Unreadable, match="empty"):
        decode(b"", CONFIG)


def test_transparent_parts_are_white() -> None:
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    clear.paste((255, 0, 0, 255), (0, 0, 20, 40))
    pixels = decode(made.encode(clear), CONFIG)
    assert pixels[0, 0].tolist() == [255, 0, 0]
    assert pixels[0, 39].tolist() == [255, 255, 255]


def test_sixteen_bits_keep_their_upper_byte() -> None:
    wide = np.linspace(0, 65535, 64 * 64, dtype=np.uint16).reshape(64, 64)
    assert np.array_equal(decode(made.encode(Image.fromarray(wide)), CONFIG)[..., 0], (wide >> 8).astype(np.uint8))


@pytest.mark.parametrize("flips", range(40))
def test_a_flipped_bit_reads_or_is_refused_and_never_fails(face: bytes, flips: int) -> None:
    rng = np.random.default_rng(flips)
    data = bytearray(face if flips % 2 else made.encode(Image.open(io.BytesIO(face))))
    for place in rng.integers(0, len(data), 1 + flips):
        data[place] ^= 1 << int(rng.integers(8))
    try:
        outcome = decode(bytes(data), CONFIG).shape[2]
    except Unreadable as refused:
        outcome = refused.reason
    assert outcome == 3 or outcome in REASONS


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.9, 0.99])
def test_a_cut_photograph_is_refused(face: bytes, share: float) -> None:
    with pytest.raises(Unreadable) as refused:
        decode(face[: int(len(face) * share)], CONFIG)
    assert refused.value.reason in ("truncated", "not_an_image", "undecodable")


def test_decoding_again_gives_the_same_pixels(faces: dict[str, bytes]) -> None:
    for data in [*faces.values(), *made.readable(next(iter(faces.values()))).values()]:
        pixels, factor = decode_again(data, CONFIG, most=0.9)
        assert factor == 1
        assert np.array_equal(decode(data, CONFIG), pixels)


@pytest.mark.parametrize("most", [1.9, 2.0, 3.9, 5.0, 100.0])
def test_decoding_again_at_a_reduced_size(face: bytes, most: float) -> None:
    pixels, factor = decode_again(face, CONFIG, most)
    assert factor == next(f for f in (8, 4, 2, 1) if f <= most)
    assert pixels.shape == (-(-250 // factor), -(-250 // factor), 3)
    whole = decode(face, CONFIG)[: 250 // factor * factor, : 250 // factor * factor].astype(float)
    side = 250 // factor
    means = whole.reshape(side, factor, side, factor, 3).mean((1, 3))
    assert np.abs(pixels[:side, :side] - means).mean() < 3
