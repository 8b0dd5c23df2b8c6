"""Turning plain data (from YAML or JSON) into specifications, with errors that say which key is wrong and how."""

from __future__ import annotations

import difflib
import re
from typing import TypeVar

import msgspec
from msgspec import inspect

from yunmo.core.errors import InvalidInput

T = TypeVar("T")
_LONGEST = 300
"""Characters of a message, which may quote what was given."""


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all specifications: immutable; unknown keys are errors."""


def convert(data: object, kind: type[T], *, what: str, error: type[InvalidInput] = InvalidInput) -> T:
    """Convert plain data to ``kind``, a `Spec` or a type made of specs.

    Args:
        data: dicts, lists and scalars.
        kind: the type to make.
        what: what the data is, for messages: ``recipe``, ``settings``, ``request``.
        error: the class to raise.

    Raises:
        InvalidInput: (or the class given) an unknown key, with the nearest known one; a wrong type or value.
    """
    _refuse_unknown(data, inspect.type_info(kind), what, error)
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as failure:
        message, _, path = str(failure).partition(" - at `")
        where = path.rstrip("`").removeprefix("$").removeprefix(".")
        raise error(_plain(message[:_LONGEST]), where=f"{what}, {where}" if where else what) from None


def _plain(message: str) -> str:
    message = message.replace("Object missing required field", "missing key").replace("`", "'")
    return re.sub(r"^Expected", "expected", message)


def _refuse_unknown(data: object, kind: inspect.Type, what: str, error: type[InvalidInput], path: str = "") -> None:
    """Walk data and type together and raise at the first key or tag that the type does not know."""
    if isinstance(kind, inspect.Metadata):
        _refuse_unknown(data, kind.type, what, error, path)
    elif isinstance(kind, inspect.UnionType):
        _refuse_in_union(data, kind, what, error, path)
    elif isinstance(kind, inspect.StructType) and isinstance(data, dict):
        known = {field.encode_name: field.type for field in kind.fields}
        allowed = [*known, *([kind.tag_field] if kind.tag_field else [])]
        for key, value in data.items():
            if key not in allowed:
                raise error(f"unknown key {key!r}", where=_where(what, path), remedy=_suggest(str(key), allowed))
            if key in known:
                _refuse_unknown(value, known[key], what, error, f"{path}.{key}" if path else str(key))
    elif isinstance(kind, inspect.DictType) and isinstance(data, dict):
        for key, value in data.items():
            _refuse_unknown(value, kind.value_type, what, error, f"{path}.{key}" if path else str(key))
    elif isinstance(kind, inspect.CollectionType) and isinstance(data, (list, tuple)):
        for index, value in enumerate(data):
            _refuse_unknown(value, kind.item_type, what, error, f"{path}[{index}]")


def _refuse_in_union(data: object, kind: inspect.UnionType, what: str, error: type[InvalidInput], path: str) -> None:
    structs = [member for member in map(_bare, kind.types) if isinstance(member, inspect.StructType)]
    if isinstance(data, (list, tuple)):
        for member in map(_bare, kind.types):
            if isinstance(member, inspect.CollectionType):
                _refuse_unknown(data, member, what, error, path)
        return
    if not isinstance(data, dict) or not structs:
        return
    tag_field = structs[0].tag_field
    if tag_field is None:
        _refuse_unknown(data, structs[0], what, error, path)
        return
    by_tag = {struct.tag: struct for struct in structs}
    tag = data.get(tag_field)
    if tag is None:
        choices = ", ".join(map(str, by_tag))
        raise error(f"missing key {tag_field!r}", where=_where(what, path), remedy=f"It is one of: {choices}")
    if tag not in by_tag:
        remedy = _suggest(str(tag), [str(known) for known in by_tag])
        raise error(f"unknown {tag_field} {tag!r}", where=_where(what, path), remedy=remedy)
    _refuse_unknown(data, by_tag[tag], what, error, path)


def _bare(kind: inspect.Type) -> inspect.Type:
    return kind.type if isinstance(kind, inspect.Metadata) else kind


def _where(what: str, path: str) -> str:
    return f"{what}, {path}" if path else what


def _suggest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}"
