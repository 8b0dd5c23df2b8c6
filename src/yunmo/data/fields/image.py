"""Pictures: bytes of a file or arrays of pixels, as uint8 (height, width, channels)."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from typing import Any, Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from yunmo.core import fields as specs
from yunmo.core.errors import BodyTooLarge, DataError, InvalidInput
from yunmo.core.events import Decision
from yunmo.core.fields import FieldStatistics
from yunmo.data.fields import pixels as px
from yunmo.data.fields.base import Cleaned, Field, TensorSpec, Values, Where, Wire, is_missing

LARGEST_KEPT = 64
"""Pictures up to this size a side are used as they are; larger ones are scaled to it if the recipe names no size."""

_SAMPLE = 1000
_RAW_LIMIT = 64 * 1024
_TURNS = {0: 0, 90: 1, 180: 2, 270: 3}


@runtime_checkable
class Readable(Protocol):
    """A picture that is still in its file."""

    def read(self) -> bytes:
        """Return the file's bytes."""
        ...


class ImageField(Field):
    """Pictures of one size and one color mode.

    Args:
        spec: what the recipe says.
        statistics: what training learned.
        max_pixels: most pixels of a picture that is decoded.
    """

    MEDIA_TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp", "image/gif")
    spec: specs.ImageField

    def __init__(
        self, spec: specs.ImageField, statistics: FieldStatistics | None = None, *, max_pixels: int = px.MAX_PIXELS
    ) -> None:
        super().__init__(spec, statistics)
        self.max_pixels = max_pixels
        self._gray = spec.color == "gray"
        size = spec.size
        self._size = (size, size) if isinstance(size, int) else (size[0], size[1]) if size else (0, 0)
        turned = spec.rotate in (90, 270)
        self._before_turn = self._size[::-1] if turned else self._size
        self._as_is = not spec.rotate and spec.flip == "none"
        self._stand_in = np.empty(0, np.uint8)
        if spec.missing == "mean" and statistics is not None:
            self._stand_in = stand_in(statistics)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an encoded picture."""
        return (*self._size, 1 if self._gray else 3)

    def resolve(self, values: Values, where: Where) -> tuple[ImageField, list[Decision]]:
        """Take the most common size (at most `LARGEST_KEPT` a side), and gray if every picture looked at is gray."""
        if self.spec.size is not None and self.spec.color is not None:
            return self, []
        measured = list(self._measured(values))
        if not measured:
            raise DataError(
                "no picture could be read",
                where=f"{where(0)}, field {self.name}",
                remedy="Give JPEG, PNG, WebP, BMP or GIF pictures",
            )
        spec, decisions = self.spec, []
        if spec.size is None:
            (height, width), count = Counter((height, width) for height, width, _ in measured).most_common(1)[0]
            size = _limited(height, width, self.spec.rotate in (90, 270))
            share = f"{count} of {len(measured)} pictures looked at are {height} x {width}"
            spec = msgspec.structs.replace(spec, size=size)
            decisions.append(Decision(key=f"inputs.{self.name}.size", value=str(size), reason=share))
        if spec.color is None:
            grays = sum(gray for _, _, gray in measured)
            color = "gray" if grays == len(measured) else "rgb"
            spec = msgspec.structs.replace(spec, color=color)
            reason = f"{grays} of {len(measured)} pictures looked at are gray"
            decisions.append(Decision(key=f"inputs.{self.name}.color", value=color, reason=reason))
        return ImageField(spec, self.statistics, max_pixels=self.max_pixels), decisions

    def clean(self, values: Values, where: Where) -> Cleaned:
        """Find rows without a picture, and drop them if the recipe says so.

        Whether a picture can be decoded shows when it is.

        Raises:
            DataError: there is none in any row.
        """
        every = np.ones(len(values), np.bool_)
        if isinstance(values, np.ndarray):
            return Cleaned(every)
        there = np.fromiter((not no_picture(value) for value in values), np.bool_, len(values))
        rows = np.flatnonzero(~there)
        if self.spec.missing == "drop":
            return Cleaned(there, self.issue("no picture", "row dropped", rows, where))
        if not there.any():
            raise DataError(
                "every picture is missing", where=f"{where(0)}, field {self.column}", remedy="Leave the field out"
            )
        return Cleaned(every, self.issue("no picture", "one of the mean color stands for it", rows, where))

    def fit(self, values: Values) -> FieldStatistics:
        """Learn mean, deviation, minimum and maximum of each channel, 0 to 1, of the pictures that are there."""
        sums = PixelStatistics(self.shape[2])
        there = values if isinstance(values, np.ndarray) else [value for value in values if not no_picture(value)]
        for start in range(0, len(there), 64):
            sums.add(self.encode(there[start : start + 64])[self.name])
        sums.missing = len(values) - len(there)
        return sums.statistics(self)

    def encode(self, values: Values) -> dict[str, NDArray[Any]]:
        """Decode, turn, mirror and resize pictures.

        Args:
            values: of each picture the file's bytes (or base64 of them, as text), a `Readable`, or its pixels as an
                array or nested lists of whole numbers 0 to 255: (height, width) or (height, width, channels); None
                or nothing at all for a missing one.

        Returns:
            ``{name: uint8 [rows, height, width, channels]}``.
        """
        array = isinstance(values, np.ndarray) and values.dtype == np.uint8 and values.shape[1:] == self.shape
        if array and self._as_is:
            return {self.name: np.ascontiguousarray(values)}
        batch = np.empty((len(values), *self.shape), np.uint8)
        for index, value in enumerate(values):
            try:
                batch[index] = self.picture(value)
            except InvalidInput as error:
                raise self.refuse(error.message, index, remedy=error.remedy) from None
            except BodyTooLarge as error:
                where = f"row {index}, field {self.name}"
                raise BodyTooLarge(error.message, where=where, remedy=error.remedy) from None
        return {self.name: batch}

    def picture(self, value: Any) -> px.Pixels:
        """Encode one picture: uint8 (height, width, channels).

        Raises:
            InvalidInput: no picture, or a missing one where nothing stands for it.
            BodyTooLarge: too many pixels.
        """
        if no_picture(value):
            if not len(self._stand_in):
                raise InvalidInput("the picture is missing", remedy="Send a picture")
            return np.broadcast_to(self._stand_in, self.shape)
        pixels = self._pixels(value)
        spec = self.spec
        if spec.rotate:
            pixels = np.rot90(pixels, _TURNS[spec.rotate])
        if spec.flip != "none":
            pixels = pixels[:, ::-1] if spec.flip == "horizontal" else pixels[::-1]
        return pixels if pixels.shape[:2] == self._size else px.resize(pixels, self._size, spec.resize)

    def tensors(self) -> list[TensorSpec]:
        """One tensor: uint8 (height, width, channels)."""
        return [TensorSpec(self.name, "uint8", self.shape)]

    def wire(self) -> tuple[Wire, ...]:
        """Pixels, or the bytes of a picture's file, none for a missing one."""
        height, width = self._before_turn
        return Wire("UINT8", (height, width, self.shape[2])), Wire("BYTES", ())

    def json_schema(self) -> dict[str, Any]:
        """A base64 string, or nested lists of pixels."""
        height, width, channels = self.shape
        missing = [{"type": "null", "description": "a missing picture"}] if self.spec.missing != "drop" else []
        return {
            "description": f"a picture; it is brought to {width} x {height} pixels, {self.spec.color}",
            "anyOf": [
                {
                    "type": "string",
                    "contentEncoding": "base64",
                    "description": "the bytes of a JPEG, PNG, WebP, BMP or GIF file in base64",
                },
                {
                    "type": "array",
                    "items": {"type": "array"},
                    "description": f"pixels from 0 to 255: rows of columns{' of channels' if channels > 1 else ''}",
                },
                *missing,
            ],
        }

    def reads(self, media_type: str) -> bool:
        """Say so of any picture: what it is, its bytes tell."""
        return media_type.startswith("image/") or media_type == "application/octet-stream"

    def raw(self, value: Any) -> str | None:
        """Return base64 of the file; of a large file or an array, of a PNG that encodes to the same pixels.

        None for a missing picture.
        """
        if no_picture(value):
            return None
        data = _file_bytes(value)
        if data is None or len(data) > _RAW_LIMIT:
            pixels = self.picture(value)
            if self.spec.flip != "none":
                pixels = pixels[:, ::-1] if self.spec.flip == "horizontal" else pixels[::-1]
            data = px.to_png(np.ascontiguousarray(np.rot90(pixels, -_TURNS[self.spec.rotate])))
        return base64.b64encode(data).decode()

    def _pixels(self, value: Any) -> px.Pixels:
        data = _file_bytes(value)
        if data is not None:
            return px.decode(data, gray=self._gray, size=self._before_turn, max_pixels=self.max_pixels)
        return px.to_channels(_as_pixels(value, self.max_pixels), gray=self._gray)

    def _measured(self, values: Values) -> Any:
        """Yield height, width and gray of up to `_SAMPLE` pictures, spread evenly; unreadable ones are passed over."""
        there = np.flatnonzero([not no_picture(value) for value in values])
        chosen = np.unique(np.linspace(0, len(there) - 1, min(_SAMPLE, len(there))).astype(np.int64))
        for index in there[chosen]:
            try:
                data = _file_bytes(values[index])
                if data is not None:
                    yield px.measure(data, max_pixels=self.max_pixels)
                else:
                    array = _as_pixels(values[index], self.max_pixels)
                    yield array.shape[0], array.shape[1], array.ndim == 2 or array.shape[2] == 1
            except (InvalidInput, BodyTooLarge):
                continue


class PixelStatistics:
    """Exact statistics of uint8 pictures, added up batch by batch from histograms."""

    def __init__(self, channels: int) -> None:
        self.counts = np.zeros((channels, 256), np.int64)
        self.rows = 0
        self.missing = 0
        """Rows without a picture, which are not among those added up."""

    def add(self, batch: NDArray[np.uint8]) -> None:
        """Count a batch (rows, height, width, channels)."""
        for channel in range(len(self.counts)):
            self.counts[channel] += np.bincount(batch[..., channel].ravel(), minlength=256)
        self.rows += len(batch)

    def statistics(self, field: ImageField) -> FieldStatistics:
        """Return the statistics of all that was added, on a scale of 0 to 1."""
        levels = np.arange(256) / 255
        total = np.maximum(self.counts.sum(axis=1), 1)
        mean = self.counts @ levels / total
        deviation = np.sqrt(np.maximum(self.counts @ levels**2 / total - mean**2, 0))
        seen = [np.flatnonzero(row) / 255 for row in self.counts]
        return FieldStatistics(
            name=field.name,
            type="image",
            role="input",
            encode_version=field.ENCODE_VERSION,
            count=self.rows + self.missing,
            missing=self.missing,
            mean=tuple(mean.tolist()),
            deviation=tuple(deviation.tolist()),
            minimum=tuple(float(row[0]) if len(row) else 0.0 for row in seen),
            maximum=tuple(float(row[-1]) if len(row) else 0.0 for row in seen),
            shape=field.shape,
        )


def no_picture(value: Any) -> bool:
    """Say whether a raw value stands for a missing picture: as for other fields, or nothing where a file would be."""
    return is_missing(value) or (isinstance(value, (bytes, bytearray, memoryview)) and not len(value))


def stand_in(statistics: FieldStatistics) -> NDArray[np.uint8]:
    """Return the color that stands for a missing picture: uint8 (channels,).

    The network's standard scaling makes it 0, so that it says nothing but that there is no picture.
    """
    color: NDArray[np.uint8] = np.rint(np.asarray(statistics.mean) * 255).astype(np.uint8)
    return color


def _file_bytes(value: Any) -> bytes | None:
    """Return the bytes of a picture's file; None if the value is an array of pixels (or nothing)."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        text = value.partition(",")[2] if value.startswith("data:") else value
        try:
            return binascii.a2b_base64(text, strict_mode=True)
        except (binascii.Error, ValueError):
            raise InvalidInput("not base64", remedy="Send the picture's file in base64") from None
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    return value.read() if isinstance(value, Readable) else None


def _as_pixels(value: Any, max_pixels: int) -> px.Pixels:
    try:
        array = np.asarray(value)
    except ValueError:
        raise InvalidInput("rows of pixels of different lengths") from None
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise InvalidInput(
            f"pixels of shape {list(array.shape)}", remedy="Give [height, width] or [height, width, channels]"
        )
    px.check_pixels(array.shape[0], array.shape[1], max_pixels)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "iuf":
        raise InvalidInput("pixels are whole numbers from 0 to 255")
    whole = array.astype(np.uint8) if np.all((array >= 0) & (array <= 255)) else None
    if whole is None or not np.array_equal(whole, array):
        raise InvalidInput("pixels are whole numbers from 0 to 255")
    return whole


def _limited(height: int, width: int, turned: bool) -> int | tuple[int, int]:
    longest = max(height, width)
    if longest > LARGEST_KEPT:
        height = max(1, round(height * LARGEST_KEPT / longest))
        width = max(1, round(width * LARGEST_KEPT / longest))
    if height == width:
        return height
    return (width, height) if turned else (height, width)
