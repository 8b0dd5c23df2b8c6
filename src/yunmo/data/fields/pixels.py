"""Decoding pictures to pixels: simplejpeg for JPEG, Pillow for the rest and for JPEGs that simplejpeg refuses."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import simplejpeg  # type: ignore[import-untyped] # it ships no py.typed
from numpy.typing import NDArray

from yunmo.core.errors import BodyTooLarge, InvalidInput

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]
"""Height x width x channels."""

MAX_PIXELS = 50_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
"""Pillow's names of the formats that are read; it knows many more, each one more way in."""

_BROKEN = (OSError, SyntaxError, ValueError, IndexError, EOFError, struct.error)
"""What Pillow raises as it meets damage (found by fuzzing)."""
_EXIF_ORIENTATION = 0x0112
_OVERSAMPLE = 2
"""Large JPEGs are decoded at no less than so many times the wanted size, which DCT scaling makes cheap."""


def decode(data: bytes, *, gray: bool, size: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode a picture, upright (EXIF orientation applied).

    Args:
        data: the file's bytes: JPEG, PNG, WebP, BMP or GIF (its first frame).
        gray: one channel (ITU-R 601 luma) instead of three.
        size: (height, width) that is wanted in the end; a larger JPEG may then come back smaller than it is, but
            never smaller than twice that size.
        max_pixels: most pixels that are decoded; judged by the header, before any memory is taken.

    Raises:
        InvalidInput: not a picture, of another format, or damaged.
        BodyTooLarge: too many pixels.
    """
    if data[:2] == b"\xff\xd8":
        pixels = _decode_jpeg(data, gray, size, max_pixels)
        if pixels is not None:
            orientation = _jpeg_orientation(data)
            return pixels if orientation == 1 else _upright(pixels, orientation)
    return _decode_pillow(data, gray, max_pixels)


def measure(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int, bool]:
    """Read a picture's header: height and width when upright, and whether it is gray.

    Raises:
        InvalidInput: not a picture that can be read.
        BodyTooLarge: too many pixels.
    """
    with _opened(data, max_pixels) as picture:
        width, height = picture.size
        # Asking a PNG for EXIF data that it does not announce before its pixels would decode it.
        if picture.format != "PNG" or "exif" in picture.info:
            try:
                orientation = _orientation(picture, data)
            except _BROKEN as error:
                raise InvalidInput(f"damaged picture ({error})") from None
            if orientation >= 5:
                width, height = height, width
        return height, width, picture.mode in ("L", "LA", "1") or picture.mode.startswith("I")


def resize(pixels: Pixels, size: tuple[int, int], how: Literal["stretch", "crop", "pad"]) -> Pixels:
    """Bring a picture to (height, width): stretched, cut in the middle, or padded with black."""
    height, width = size
    if pixels.shape[:2] == size:
        return pixels
    if how == "stretch":
        return _scaled(pixels, height, width)
    ratios = (height / pixels.shape[0], width / pixels.shape[1])
    ratio = max(ratios) if how == "crop" else min(ratios)
    inner_height = max(1, round(pixels.shape[0] * ratio))
    inner_width = max(1, round(pixels.shape[1] * ratio))
    inner = _scaled(pixels, inner_height, inner_width)
    top, left = abs(inner_height - height) // 2, abs(inner_width - width) // 2
    if how == "crop":
        return inner[top : top + height, left : left + width]
    padded = np.zeros((height, width, pixels.shape[2]), np.uint8)
    padded[top : top + inner_height, left : left + inner_width] = inner
    return padded


def to_channels(pixels: Pixels, *, gray: bool) -> Pixels:
    """Give an array of pixels (height, width[, 1, 3 or 4 channels]) one channel or three."""
    from PIL import Image

    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    channels = pixels.shape[2]
    if channels == 4:
        return _flat(Image.fromarray(pixels), gray)
    if gray and channels == 3:
        return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
    return pixels if gray or channels == 3 else np.repeat(pixels, 3, axis=2)


def to_png(pixels: Pixels) -> bytes:
    """Write pixels as a PNG file."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(out, "PNG")
    return out.getvalue()


def check_pixels(height: int, width: int, max_pixels: int) -> None:
    """Refuse a picture that would take too much memory.

    Raises:
        BodyTooLarge: more than ``max_pixels``.
    """
    if height * width > max_pixels:
        raise BodyTooLarge(
            f"a picture of {width} x {height} pixels; at most {max_pixels:,} are decoded",
            remedy="Make it smaller, or raise the setting max_pixels",
        )


def _decode_jpeg(data: bytes, gray: bool, size: tuple[int, int] | None, max_pixels: int) -> Pixels | None:
    """Decode with simplejpeg; None where Pillow should try (CMYK, oddities that are not errors)."""
    try:
        header = simplejpeg.decode_jpeg_header(data)
        height, width = int(header[0]), int(header[1])
        check_pixels(height, width, max_pixels)
        if header[2] not in ("YCbCr", "Gray", "RGB"):
            return None
        colorspace = "GRAY" if gray else "RGB"
        least = _OVERSAMPLE * max(size) if size else 0
        if min(height, width) <= 2 * least:
            least = 0
        pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace, min_height=least, min_width=least)
        return pixels
    except ValueError:
        return None


def _decode_pillow(data: bytes, gray: bool, max_pixels: int) -> Pixels:
    with _opened(data, max_pixels) as picture:
        try:
            pixels = _flat(picture, gray)
            orientation = _orientation(picture, data)
        except _BROKEN as error:
            raise InvalidInput(f"damaged picture ({error})") from None
    return pixels if orientation == 1 else _upright(pixels, orientation)


def _opened(data: bytes, max_pixels: int) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise InvalidInput("an empty file")
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise BodyTooLarge("a picture with far too many pixels") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, struct.error):
        raise InvalidInput("not a JPEG, PNG, WebP, BMP or GIF picture") from None
    check_pixels(picture.height, picture.width, max_pixels)
    return picture


def _flat(picture: Image.Image, gray: bool) -> Pixels:
    """Return an opened picture as 8-bit pixels: 16 bits scaled down, transparent places white."""
    from PIL import Image

    if picture.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit values at 255 instead of scaling them.
        wide = np.asarray(picture).astype(np.int64)
        picture = Image.fromarray((wide.clip(0, 65535) >> 8).astype(np.uint8))
    elif picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        colors = picture.convert("RGBA")
        ground = Image.new("RGBA", colors.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(ground, colors)
    wanted = "L" if gray else "RGB"
    converted = picture.convert(wanted)
    pixels = np.asarray(converted)
    return pixels[:, :, None] if gray else pixels


def _scaled(pixels: Pixels, height: int, width: int) -> Pixels:
    from PIL import Image

    if pixels.shape[:2] == (height, width):
        return pixels
    single = pixels.shape[2] == 1
    picture = Image.fromarray(pixels[:, :, 0] if single else pixels)
    scaled = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    return scaled[:, :, None] if single else scaled


def _orientation(picture: Image.Image, data: bytes) -> int:
    if data[:2] == b"\xff\xd8":
        return _jpeg_orientation(data)
    value: Any = picture.getexif().get(_EXIF_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _jpeg_orientation(data: bytes) -> int:
    """Return the EXIF orientation (1 to 8) of a JPEG; 1 where there is none.

    Both decoders use this one reader, so that a picture stands the same way whichever of them reads it.
    """
    if data.find(b"Exif\0\0", 0, 4096) < 0:
        return 1
    place = 2
    while place + 10 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] == 0xE1 and data[place + 4 : place + 10] == b"Exif\0\0":
            return _tiff_orientation(data[place + 10 : place + 2 + length])
        place += 2 + max(2, length)
    return 1


def _tiff_orientation(tiff: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for index in range(min(count, 512)):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * index)
            if tag == _EXIF_ORIENTATION:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn pixels stored with an EXIF orientation upright (EXIF 2.32, tag 0x0112)."""
    if orientation in (2, 4, 5, 7):
        pixels = {2: pixels[:, ::-1], 4: pixels[::-1], 5: pixels.swapaxes(0, 1)}.get(
            orientation, pixels[::-1, ::-1].swapaxes(0, 1)
        )
    else:
        # Counter-clockwise quarter turns.
        pixels = np.rot90(pixels, {3: 2, 6: 3, 8: 1}[orientation])
    return np.ascontiguousarray(pixels)
