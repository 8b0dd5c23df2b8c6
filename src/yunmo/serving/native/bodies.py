"""Bodies of the native API, turned into rows: JSON, a form, or one raw file."""

from __future__ import annotations

import functools
import json
import re
from typing import Any, Protocol

import msgspec

from yunmo.core.errors import InvalidInput, UnsupportedMediaType
from yunmo.serving.http import check_encoding

Rows = list[dict[str, Any]]

JSON = "application/json"
FORM = "multipart/form-data"

MAX_PARTS = 1000
_BODY = "request body"
_LONGEST = 200
"""Characters of a parser's message: it tells the way to the place, step by step."""
_LONGEST_HEADER = 1000
_PARAMETER = re.compile(r';[ \t]*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=("(?:[^"\\]|\\.)*"|[^;"]*)')
_ESCAPED = re.compile(r"\\(.)")
_DEEP = "the JSON is nested too deep"


class TakesRaw(Protocol):
    """The part of a predictor that knows which field a raw body is for."""

    @property
    def raw_types(self) -> tuple[str, ...]:
        """Media types of raw bodies that clients are told of."""

    def single_input(self, media_type: str) -> str | None:
        """Return the field that a body of this media type is the value of, None if there is none."""


@functools.lru_cache(maxsize=256)
def media_type(content_type: str | None) -> tuple[str, dict[str, str]]:
    """Split a Content-Type header into the type, in lower case, and its parameters."""
    return parameters(content_type or "")


def parameters(header: str) -> tuple[str, dict[str, str]]:
    """Split a header into its value, in lower case, and its parameters (RFC 9110, 5.6.6).

    The standard library's parser is one of mail: of RFC 2231's names (``name*0*=``), which forms must not have
    (RFC 7578, 4.2), it makes tuples, and some of them break it.
    """
    value, semicolon, rest = header[:_LONGEST_HEADER].partition(";")
    found: dict[str, str] = {}
    for name, text in _PARAMETER.findall(semicolon + rest):
        quoted = text[:1] == '"'
        found.setdefault(name.lower(), _ESCAPED.sub(r"\1", text[1:-1]) if quoted else text.strip())
    return value.strip().lower(), found


def accepted(model: TakesRaw) -> list[str]:
    """Return the media types that an endpoint reads."""
    return [JSON, FORM, *model.raw_types]


def check_type(content_type: str | None, encoding: str | None, model: TakesRaw) -> None:
    """Refuse a body by its headers, before it is read.

    Raises:
        UnsupportedMediaType: naming what is accepted.
    """
    check_encoding(encoding)
    kind, given = media_type(content_type)
    if kind in (JSON, FORM):
        _check_charset(given)
    elif kind and model.single_input(kind) is not None:
        if kind.startswith("text/"):
            _check_charset(given)
    else:
        message = f"{kind[:80]!r} is not a body that this endpoint reads" if kind else "the body has no content type"
        raise UnsupportedMediaType(
            message, where="header content-type", remedy=f"Accepted: {', '.join(accepted(model))}"
        )


def _check_charset(given: dict[str, str]) -> None:
    charset = given.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMediaType(
            f"the charset {charset[:80]!r} is not read", where="header content-type", remedy="Send UTF-8"
        )


def read_rows(body: bytes, content_type: str | None, model: TakesRaw) -> Rows:
    """Turn a body whose headers passed `check_type` into rows.

    Raises:
        InvalidInput: the body is not what its content type says, or it has no rows.
    """
    kind, given = media_type(content_type)
    if kind == JSON:
        return read_json(body)
    if kind == FORM:
        return [read_form(body, given.get("boundary", ""))]
    if not body:
        raise InvalidInput("the body is empty", where=_BODY)
    return [{str(model.single_input(kind)): body}]


def read_json(body: bytes) -> Rows:
    """Turn JSON into rows: one object is one row, an array of objects several.

    Raises:
        InvalidInput: no JSON (NaN and Infinity are none), nested too deep, a key twice, or another shape.
    """
    try:
        value = msgspec.json.decode(body)
    except RecursionError:
        raise InvalidInput(_DEEP, where=_BODY) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"not valid JSON: {str(error)[:_LONGEST]}", where=_BODY) from None
    rows = value if isinstance(value, list) else [value]
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InvalidInput(
                "a row is an object of fields",
                where=f"{_BODY}, row {index}" if isinstance(value, list) else _BODY,
                remedy='Send {"field": value} or [{"field": value}, ...]',
            )
    # Each key has a colon; if there are no more colons than keys, no key can have come twice. Else look closely.
    if body.count(b":") != sum(map(len, rows)):
        _refuse_duplicates(body)
    return rows


def _refuse_duplicates(body: bytes) -> None:
    def check(pairs: list[tuple[str, Any]]) -> None:
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise InvalidInput(f"the key {key[:80]!r} comes twice in one object", where=_BODY)
            seen.add(key)

    try:
        json.loads(body, object_pairs_hook=check)
    except RecursionError:
        raise InvalidInput(_DEEP, where=_BODY) from None
    except ValueError as error:
        raise InvalidInput(f"not valid JSON: {error}", where=_BODY) from None


def read_form(body: bytes, boundary: str) -> dict[str, Any]:
    """Turn a multipart form into one row: files as bytes, other parts as text.

    Raises:
        InvalidInput: a malformed form, a part without a name, or a name that comes twice.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser

    if not boundary:
        raise InvalidInput("the form's boundary is missing", where="header content-type")
    parts = _Parts()
    try:
        parser = MultipartParser(boundary.encode("latin-1", "replace"), parts.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidInput(f"not a valid form: {error}", where=_BODY) from None
    if not parts.complete:
        raise InvalidInput("the form ends in the middle", where=_BODY)
    return parts.row


class _Parts:
    """Collects the parts of a form as the parser meets them."""

    def __init__(self) -> None:
        self.row: dict[str, Any] = {}
        self.complete = False
        self._headers: dict[str, str] = {}
        self._name = bytearray()
        self._value = bytearray()
        self._data = bytearray()

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_part_data": lambda data, start, end: self._data.extend(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._headers = {}
        self._data = bytearray()

    def _header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("utf-8", "replace")
        self._name, self._value = bytearray(), bytearray()

    def _end(self) -> None:
        _, given = parameters(self._headers.get("content-disposition", ""))
        name = given.get("name")
        if not name:
            raise InvalidInput("a part of the form has no name", where=_BODY)
        if name in self.row:
            raise InvalidInput(f"the field {name[:80]!r} comes twice", where=_BODY, remedy="A form is one row")
        if len(self.row) >= MAX_PARTS:
            raise InvalidInput(f"a form has at most {MAX_PARTS} parts", where=_BODY)
        self.row[name] = bytes(self._data) if "filename" in given else self._text(name)

    def _text(self, name: str) -> str:
        try:
            return self._data.decode()
        except UnicodeDecodeError:
            raise InvalidInput("the text is not UTF-8", where=f"{_BODY}, field {name[:80]}") from None

    def _finish(self) -> None:
        self.complete = True
