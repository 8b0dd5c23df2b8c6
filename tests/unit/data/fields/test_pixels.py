from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from yunmo.core.errors import BodyTooLarge, InvalidInput
from yunmo.data.fields.pixels import decode, measure, resize, to_channels, to_png


def _gradient(height: int = 16, width: int = 24) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) * 3], axis=2).astype(np.uint8)


def _file(pixels: np.ndarray, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


@pytest.mark.parametrize("form", ["PNG", "BMP", "WEBP"])
def test_lossless_formats_keep_every_pixel(form: str) -> None:
    pixels = _gradient()
    options = {"lossless": True} if form == "WEBP" else {}
    assert np.array_equal(decode(_file(pixels, form, **options), gray=False), pixels)


def test_jpeg_has_the_pixels_that_pillow_reads() -> None:
    data = _file(_gradient(), "JPEG", quality=95)
    ours = decode(data, gray=False).astype(int)
    assert np.abs(ours - np.asarray(Image.open(io.BytesIO(data)))).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_honoured_the_same_in_every_format(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _file(_gradient(), form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")).astype(int)
    found = decode(data, gray=False)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1
    assert measure(data) == (*wanted.shape[:2], False)


def test_orientation_is_the_same_when_pillow_must_decode_the_jpeg() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.fromarray(_gradient()).convert("CMYK").save(out, "JPEG", exif=exif)
    assert decode(out.getvalue(), gray=False).shape == (24, 16, 3)


def test_gray_cmyk_alpha_palette_and_16_bits() -> None:
    pixels = _gradient()
    gray = decode(_file(pixels[:, :, 0], "JPEG"), gray=False)
    assert gray.shape == (16, 24, 3)
    assert np.array_equal(gray[:, :, 0], gray[:, :, 2])
    assert decode(_file(pixels, "JPEG"), gray=True).shape == (16, 24, 1)
    assert decode(_file(pixels, "PNG"), gray=True).shape == (16, 24, 1)
    clear = np.dstack([pixels, np.zeros((16, 24), np.uint8)])
    assert (decode(_file(clear, "PNG"), gray=False) == 255).all(), "what is transparent shows the white ground"
    wide = (pixels[:, :, 0].astype(np.uint16) << 8) + 7
    assert np.array_equal(decode(_file(wide, "PNG"), gray=True)[:, :, 0], pixels[:, :, 0])
    palette = io.BytesIO()
    Image.fromarray(pixels).quantize(16).save(palette, "GIF")
    assert decode(palette.getvalue(), gray=False).shape == (16, 24, 3)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_truncated_files_are_refused(form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = _file(noise, form)
    with pytest.raises(InvalidInput):
        decode(data[: len(data) // 2], gray=False)


@pytest.mark.parametrize("data", [b"", b"hello", b"%PDF-1.7", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode(data, gray=False)


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_bombs_are_refused_by_their_headers() -> None:
    with pytest.raises(BodyTooLarge, match="8000 x 8000"):
        decode(_png_header(8000, 8000), gray=True)
    with pytest.raises(BodyTooLarge):
        decode(_png_header(60_000, 60_000), gray=True)
    jpeg = bytearray(_file(_gradient(), "JPEG"))
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(BodyTooLarge):
        decode(bytes(jpeg), gray=False)
    with pytest.raises(BodyTooLarge):
        decode(_file(_gradient(), "JPEG"), gray=False, max_pixels=100)


def test_large_jpegs_are_decoded_smaller_but_never_under_twice_the_size() -> None:
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(_gradient(800, 1200)))
    height, width = decode(data, gray=False, size=(32, 32)).shape[:2]
    assert 64 <= height < 200
    assert 64 <= width < 300
    assert decode(data, gray=False).shape == (800, 1200, 3)


def test_resize_stretches_crops_and_pads() -> None:
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, 5:15] = 255
    assert resize(pixels, (10, 10), "stretch").mean() == pytest.approx(127.5, abs=8)
    assert (resize(pixels, (10, 10), "crop") == 255).all()
    padded = resize(pixels, (20, 20), "pad")
    assert not padded[:5].any()
    assert not padded[15:].any()
    assert np.array_equal(padded[5:15], pixels)


def test_arrays_get_the_channels_wanted() -> None:
    gray = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert to_channels(gray, gray=True).shape == (4, 4, 1)
    assert to_channels(gray, gray=False).shape == (4, 4, 3)
    assert to_channels(_gradient(4, 4), gray=True).shape == (4, 4, 1)
    assert to_channels(np.zeros((4, 4, 4), np.uint8), gray=False).min() == 255


def test_png_of_pixels_decodes_to_the_same() -> None:
    for pixels in (_gradient(), _gradient()[:, :, :1]):
        assert np.array_equal(decode(to_png(pixels), gray=pixels.shape[2] == 1), pixels)


def test_a_broken_orientation_is_damage_and_no_defect() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = _file(_gradient(), "WEBP", exif=exif.tobytes(), lossless=True)
    place = data.index(b"EXIF") + 8
    bad = data[:place] + b"\x09\0\0V" + data[place + 4 :]
    for read in (measure, lambda file: decode(file, gray=False)):
        with pytest.raises(InvalidInput, match="damaged"):
            read(bad)
