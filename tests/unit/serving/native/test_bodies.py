from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yunmo.core.errors import InvalidInput, UnsupportedMediaType, YunmoError
from yunmo.serving.native.bodies import accepted, check_type, media_type, read_form, read_json, read_rows


class Picture:
    raw_types = ("image/jpeg", "image/png")

    def single_input(self, media_type: str) -> str | None:
        return "image" if media_type.startswith("image/") else None


class Table:
    raw_types = ()

    def single_input(self, media_type: str) -> str | None:  # noqa: ARG002 (as the predictor's)
        return None


def form(*parts: tuple[str, bytes], end: bytes = b"--B--\r\n") -> bytes:
    return b"".join(b"--B\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts) + end


TEXT = 'Content-Disposition: form-data; name="{}"'
FILE = 'Content-Disposition: form-data; name="{}"; filename="a.jpg"\r\nContent-Type: image/jpeg'


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        (b'{"a": 1}', [{"a": 1}]),
        (b'[{"a": 1}, {"a": null}]', [{"a": 1}, {"a": None}]),
        (b'{"at": "12:30:00", "b": [1, [2]]}', [{"at": "12:30:00", "b": [1, [2]]}]),
        (b'[{"a": {"x": 1}}, {"a": {"x": 1}}]', [{"a": {"x": 1}}, {"a": {"x": 1}}]),
        (b"[]", []),
        ('{"名": "猫"}'.encode(), [{"名": "猫"}]),
    ],
)
def test_json_becomes_rows(body: bytes, rows: Any) -> None:
    assert read_json(body) == rows


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": 1} {"a": 2}',
        b'{"a": "\xff"}',
        b"\xef\xbb\xbf{}",
        b"1",
        b'"text"',
        b"[1]",
        b'[{"a": 1}, null]',
        b'{"a": 1, "a": 2}',
        b'{"a": 1, "\\u0061": 2}',
        b'[{"b": 1}, {"a": {"x": 1, "x": 2}}]',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b"[" * 1_000_000,
    ],
)
def test_what_is_not_rows_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="request body"):
        read_json(body)


@given(st.binary(max_size=200))
def test_rubbish_is_refused_or_read_but_never_breaks(body: bytes) -> None:
    for reader in (read_json, lambda data: read_form(data, "B")):
        with contextlib.suppress(InvalidInput):
            reader(body)


def test_a_form_is_one_row() -> None:
    body = form((TEXT.format("age"), b"31"), (FILE.format("image"), b"\xff\xd8\r\n--\x00"), (TEXT.format("c"), b""))
    assert read_form(body, "B") == {"age": "31", "image": b"\xff\xd8\r\n--\x00", "c": ""}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        form((TEXT.format("a"), b"1"), end=b""),
        form((TEXT.format("a"), b"1"))[:-9],
        form((TEXT.format("a"), b"1"), (TEXT.format("a"), b"2")),
        form(("Content-Disposition: form-data", b"1")),
        form(("X: y", b"1")),
        form((TEXT.format("a"), b"\xff")),
        form(*[(TEXT.format(f"f{n}"), b"") for n in range(1001)]),
    ],
)
def test_a_bad_form_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_form(body, "B")


def test_a_form_without_boundary_is_refused() -> None:
    with pytest.raises(InvalidInput, match="boundary"):
        read_rows(b"x", "multipart/form-data", Table())


def test_one_raw_body_is_the_only_field() -> None:
    assert read_rows(b"\xff\xd8", "Image/JPEG", Picture()) == [{"image": b"\xff\xd8"}]
    with pytest.raises(InvalidInput, match="empty"):
        read_rows(b"", "image/jpeg", Picture())


@pytest.mark.parametrize(
    ("content_type", "encoding", "model", "names"),
    [
        (None, None, Table(), "application/json, multipart/form-data"),
        ("text/csv", None, Picture(), "image/png"),
        ("application/x-www-form-urlencoded", None, Picture(), "image/jpeg"),
        ("image/jpeg", None, Table(), "application/json"),
        ("application/json; charset=utf-16", None, Table(), "UTF-8"),
        ("application/json", "gzip", Table(), None),
        ("\xff\xfe;;;=", None, Table(), "application/json"),
        ("x" * 5000, None, Table(), "application/json"),
    ],
)
def test_other_types_are_refused_naming_what_is_read(
    content_type: str | None, encoding: str | None, model: Any, names: str | None
) -> None:
    with pytest.raises(UnsupportedMediaType) as caught:
        check_type(content_type, encoding, model)
    assert (names or "compressed") in str(caught.value)


@pytest.mark.parametrize("content_type", ["application/json", "APPLICATION/JSON; charset=UTF-8", "multipart/form-data"])
def test_what_is_accepted_passes(content_type: str) -> None:
    check_type(content_type, "identity", Table())
    assert accepted(Table()) == ["application/json", "multipart/form-data"]
    assert accepted(Picture()) == ["application/json", "multipart/form-data", "image/jpeg", "image/png"]


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('form-data; name="a b"; filename="x;y"', "a b"),
        ("form-data;name=plain", "plain"),
        (r'form-data; name="a\"b\\"', 'a"b\\'),
        ('form-data; NAME="first"; name="second"', "first"),
        ('form-data; filename="name=other"; name="right"', "right"),
    ],
)
def test_names_of_parts(header: str, name: str) -> None:
    assert list(read_form(form((f"Content-Disposition: {header}", b"1")), "B")) == [name]


@pytest.mark.parametrize("header", ["form-data; name*=utf-8''a", "form-data; name*0=a", "form-data; a*0; a*="])
def test_names_in_the_form_of_mail_are_none(header: str) -> None:
    with pytest.raises(InvalidInput, match="no name"):
        read_form(form((f"Content-Disposition: {header}", b"1")), "B")
    with pytest.raises(InvalidInput, match="boundary"):
        read_rows(b"--B--", "multipart/form-data; boundary*=utf-8''B; a*0; a*=", Table())


@given(st.text(st.characters(max_codepoint=255), max_size=80))
def test_any_content_type_header_is_survived(value: str) -> None:
    kind, parameters = media_type(value)
    assert isinstance(kind, str)
    assert isinstance(parameters, dict)
    with contextlib.suppress(YunmoError):
        check_type(value, None, Picture())
        read_rows(b"{}", value, Picture())
