"""Fuzzes picture files: whatever is read has the size that was asked for, and no picture is larger than allowed."""

from __future__ import annotations

import io
import warnings

import numpy as np
from tests.fuzz.driver import fuzz, watched

with watched("PIL"):
    from PIL import Image
    from tests.fuzz.models import MAX_PIXELS

    from yunmo.data.fields import pixels as px

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")


def check(data: bytes) -> None:
    """Measure, decode and resize a picture; the first byte says how."""
    how, file = (data[0] if data else 0), data[1:]
    gray, size = bool(how & 1), (8, 8) if how & 2 else (5, 9)
    height, width, _ = px.measure(file, max_pixels=MAX_PIXELS)
    assert height * width <= MAX_PIXELS
    whole = px.decode(file, gray=gray, max_pixels=MAX_PIXELS)
    small = px.decode(file, gray=gray, size=size, max_pixels=MAX_PIXELS)
    for pixels in (whole, small):
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == (1 if gray else 3)
        assert pixels.size
        assert pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS
        for fit in ("stretch", "crop", "pad"):
            assert px.resize(pixels, size, fit).shape == (*size, pixels.shape[2])


def seeds() -> list[bytes]:
    """Return small pictures of every format and many modes."""
    made = []
    colors = Image.linear_gradient("L").resize((12, 10)).convert("RGB")
    for form in FORMATS:
        for mode in ("RGB", "L", "P", "RGBA", "1", "CMYK", "I;16"):
            buffer = io.BytesIO()
            picture = Image.new(mode, (12, 10)) if mode == "I;16" else colors.convert(mode)
            try:
                picture.save(buffer, form, **({"exif": _turned()} if form in ("JPEG", "PNG", "WEBP") else {}))
            except (OSError, KeyError, ValueError):
                continue  # a mode that the format has not
            made += [bytes([how]) + buffer.getvalue() for how in (0, 3)]
    frames = io.BytesIO()
    colors.save(frames, "GIF", save_all=True, append_images=[colors.rotate(90)])
    progressive = io.BytesIO()
    colors.save(progressive, "JPEG", progressive=True)
    return [*made, b"\0" + frames.getvalue(), b"\0" + progressive.getvalue()]


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # Pillow warns of what it puts up with
    words = (
        b"IHDR",
        b"IDAT",
        b"iTXt",
        b"zTXt",
        b"acTL",
        b"eXIf",
        b"VP8X",
        b"\xff\xd8",
        b"\xff\xc0",
        b"\xff\xda",
        b"Exif\0\0",
    )
    fuzz(check, seeds(), words)
