from __future__ import annotations

import base64
import io
import time

import numpy as np
import pytest
from PIL import Image

from yunmo.core import fields as specs
from yunmo.core.errors import BodyTooLarge, DataError, InvalidInput
from yunmo.data.fields.image import ImageField


def _field(**keys: object) -> ImageField:
    return ImageField(specs.ImageField(**({"name": "image", "size": 8, "color": "rgb"} | keys)))


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


def test_every_form_of_a_picture_encodes_to_the_same() -> None:
    data = _png(PIXELS)
    text = base64.b64encode(data).decode()
    forms = [data, bytearray(data), memoryview(data), text, f"data:image/png;base64,{text}", PIXELS, PIXELS.tolist()]
    batch = _field().encode(forms)["image"]
    assert batch.shape == (len(forms), 8, 8, 3)
    assert batch.dtype == np.uint8
    assert all(np.array_equal(row, PIXELS) for row in batch)


def test_rotate_and_flip_come_before_the_size() -> None:
    field = _field(size=(4, 8), rotate=90, flip="horizontal")
    tall = np.random.default_rng(1).integers(0, 256, (8, 4, 3), np.uint8)
    assert np.array_equal(field.encode([tall])["image"][0], np.rot90(tall)[:, ::-1])


@pytest.mark.parametrize(("rotate", "flip"), [(0, "none"), (90, "none"), (180, "vertical"), (270, "horizontal")])
def test_raw_encodes_to_the_same_pixels(rotate: int, flip: str) -> None:
    field = _field(size=(6, 10), rotate=rotate, flip=flip)
    large = np.random.default_rng(2).integers(0, 256, (300, 200, 3), np.uint8)
    for value in (large, _png(large), _png(PIXELS)):
        assert np.array_equal(field.encode([field.raw(value)])["image"], field.encode([value])["image"])
    assert len(field.raw(_png(large))) < 2000, "a large file is kept small"


@pytest.mark.parametrize(
    "value",
    [None, "no base64!", "aGVsbG8=", b"hello", [[1, 2], [3]], [[1.5]], [[300]], [[-1]], [], 7, [["a"]], {"a": 1}],
)
def test_what_is_no_picture_names_field_and_row(value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        _field().encode([PIXELS, value])
    assert caught.value.where == "row 1, field image"


def test_too_many_pixels_name_field_and_row() -> None:
    field = ImageField(specs.ImageField(name="image", size=8, color="rgb"), max_pixels=10)
    with pytest.raises(BodyTooLarge) as caught:
        field.encode([PIXELS])
    assert caught.value.where == "row 0, field image"


def test_size_and_color_come_from_the_pictures() -> None:
    small = [np.zeros((8, 6), np.uint8)] * 3 + [np.zeros((9, 9), np.uint8)]
    field, decisions = _field(size=None, color=None).resolve(small, str)
    assert (field.spec.size, field.spec.color) == ((8, 6), "gray")
    assert len(decisions) == 2
    large = [_png(np.zeros((480, 640, 3), np.uint8))]
    field, _ = _field(size=None, color=None).resolve(large, str)
    assert (field.spec.size, field.spec.color) == ((48, 64), "rgb")
    turned, _ = _field(size=None, rotate=90).resolve(small, str)
    assert turned.spec.size == (6, 8)


def test_statistics_are_those_of_the_pixels() -> None:
    pictures = np.random.default_rng(3).integers(0, 256, (150, 8, 8, 3), np.uint8)
    found = _field().fit(pictures)
    table = pictures.reshape(-1, 3) / 255
    assert found.mean == pytest.approx(table.mean(axis=0).tolist())
    assert found.deviation == pytest.approx(table.std(axis=0).tolist())
    assert found.minimum == pytest.approx(table.min(axis=0).tolist())
    assert found.shape == (8, 8, 3)
    assert found.count == 150


def test_one_small_jpeg_encodes_fast() -> None:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(out, "JPEG", quality=75)
    field, data = _field(size=32), out.getvalue()
    times = []
    for _ in range(300):
        start = time.perf_counter()
        field.encode([data])
        times.append(time.perf_counter() - start)
    assert min(times) < 200e-6, "some 20 µs are usual; Pillow alone would take longer than this"


def test_tensors_and_schema_say_what_is_encoded() -> None:
    field = _field()
    (tensor,) = field.tensors()
    assert (tensor.name, tensor.dtype, tensor.shape) == ("image", "uint8", (8, 8, 3))
    assert "base64" in str(field.json_schema())


NOTHING = [None, "", "NA", b"", bytearray(), memoryview(b""), float("nan")]


def _filling(pictures: np.ndarray, **keys: object) -> ImageField:
    field = _field(missing="mean", **keys)
    return ImageField(field.spec, field.fit([*pictures, None]))


def test_the_mean_color_stands_for_a_missing_picture() -> None:
    field = _filling(np.stack([PIXELS, PIXELS // 2]), rotate=90)
    batch = field.encode([*NOTHING, PIXELS])["image"]
    color = np.rint(np.stack([PIXELS, PIXELS // 2]).reshape(-1, 3).mean(0)).astype(np.uint8)
    assert all(np.array_equal(row, np.broadcast_to(color, (8, 8, 3))) for row in batch[:-1])
    assert np.array_equal(batch[-1], np.rot90(PIXELS))
    assert (field.known().count, field.known().missing) == (3, 1)
    assert {"type": "null", "description": "a missing picture"} in field.json_schema()["anyOf"]
    assert [field.raw(value) for value in NOTHING] == [None] * len(NOTHING)


@pytest.mark.parametrize("index", range(len(NOTHING)))
def test_a_missing_picture_is_refused_where_its_row_would_be_dropped(index: int) -> None:
    field = ImageField(_field().spec, _field().fit([PIXELS]))
    with pytest.raises(InvalidInput, match="the picture is missing") as caught:
        field.encode([PIXELS, NOTHING[index]])
    assert caught.value.where == "row 1, field image"
    assert "null" not in str(field.json_schema())


def test_what_is_there_but_no_picture_is_not_taken_for_a_missing_one() -> None:
    class Empty:
        def read(self) -> bytes:
            return b""

    field = _filling(PIXELS[None])
    for value in (Empty(), "no base64!", b"hello", [], 0):
        with pytest.raises(InvalidInput):
            field.encode([value])


def test_cleaning_names_rows_without_a_picture() -> None:
    values = [PIXELS, None, PIXELS, None]
    dropped = _field().clean(values, str)
    kept = _field(missing="mean").clean(values, str)
    assert dropped.keep.tolist() == [True, False, True, False]
    assert kept.keep.all()
    assert [(issue.action, issue.count, issue.rows) for issue in (*dropped.issues, *kept.issues)] == [
        ("row dropped", 2, ("1", "3")),
        ("one of the mean color stands for it", 2, ("1", "3")),
    ]
    with pytest.raises(DataError, match="every picture is missing"):
        _field(missing="mean").clean([None, None], str)
