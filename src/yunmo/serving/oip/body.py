"""Bodies of infer requests: a JSON document, and behind it whatever inputs came in binary."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import simdjson

from yunmo.core.errors import InvalidInput
from yunmo.protocol import oip_types
from yunmo.protocol.tensors import Array, elements, from_json, from_numbers, from_raw, held
from yunmo.serving.oip.signature import Tensor

LARGE = 1024 * 1024
"""A document of more bytes gets a parser of its own: one that is kept also keeps its memory."""

Members = dict[str, Any]
"""Members of a JSON object; those that are objects or arrays are simdjson's."""

_BODY = "request body"
_HEADER = "header inference-header-content-length"
_CODES = {"f": ("d", np.float64), "i": ("i", np.int64), "u": ("u", np.uint64)}
"""By kind of number: how simdjson calls it, and how numpy reads what simdjson gives."""


def _keys(kind: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(field.name for field in msgspec.structs.fields(kind))


_REQUEST = _keys(oip_types.InferenceRequest)
_INPUT = _keys(oip_types.RequestInput)
_OUTPUT = _keys(oip_types.RequestOutput)
_REQUEST_PARAMETERS = _keys(oip_types.RequestParameters)
_INPUT_PARAMETERS = _keys(oip_types.InputParameters)
_OUTPUT_PARAMETERS = _keys(oip_types.OutputParameters)


class InferRequest(msgspec.Struct, frozen=True):
    """An infer request of the REST face."""

    tensors: list[Tensor]
    outputs: dict[str, bool | None]
    """What is asked for, and whether in binary (None: as `binary`); empty: everything."""
    id: str | None = None
    timeout: float | None = None
    """Seconds."""
    binary: bool = False
    """Whether outputs that say nothing themselves go back in binary."""


class _Json:
    """simdjson with one parser that is used again and again."""

    def __init__(self) -> None:
        self._parser = simdjson.Parser()

    def parse(self, text: bytes | memoryview) -> Any:
        """Return what JSON holds; objects and arrays are looked into only where they are used.

        Raises:
            InvalidInput: no JSON, or nested too deep.
        """
        try:
            if len(text) > LARGE:
                return simdjson.Parser().parse(text)
            try:
                return self._parser.parse(text)
            except RuntimeError:
                # Either too deep, or the traceback of an error still holds what was parsed last.
                self._parser = simdjson.Parser()
                return self._parser.parse(text)
        except RuntimeError:
            raise InvalidInput("JSON that is nested too deep, or has a number beyond 64 bits", where=_BODY) from None
        except UnicodeDecodeError:
            raise InvalidInput("the JSON is not UTF-8", where=_BODY) from None
        except ValueError as error:
            reason = str(error).partition(":")[2].partition(".")[0].strip()
            raise InvalidInput(f"not valid JSON: {reason or error}", where=_BODY) from None


_json = _Json()


def header_length(text: str | None, size: int) -> int:
    """Return how many bytes of a body are its JSON document.

    Args:
        text: the header ``Inference-Header-Content-Length``, if there is one.
        size: bytes of the body.

    Raises:
        InvalidInput: it is no number, or more than the body has.
    """
    if text is None:
        return size
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise InvalidInput("the length of the JSON document is not a number", where=_HEADER)
    length = int(text)
    if length > size:
        raise InvalidInput(f"{length} bytes where the whole body has {size}", where=_HEADER)
    return length


def read_request(body: bytes, length: int) -> InferRequest:
    """Read a body.

    Args:
        body: the document, and binary data behind it.
        length: bytes of the document.

    Raises:
        InvalidInput: not JSON, not a request of the protocol, or tensors that are not what they say.
    """
    text = memoryview(body)[:length] if length < len(body) else body
    document = _object(_json.parse(text), _REQUEST, _BODY)
    inputs, outputs = document.get("inputs"), document.get("outputs")
    if not isinstance(inputs, simdjson.Array):
        raise InvalidInput("'inputs' is a list of tensors", where=_BODY)
    if not isinstance(outputs, (simdjson.Array, type(None))):
        raise InvalidInput("'outputs' is a list", where=_BODY)
    binary = _Binary(body, length)
    # Lists of a request whose data is flat: the inputs, of each its shape and data, and perhaps the outputs.
    flat = body.count(b"[", 0, length) <= 1 + 2 * len(inputs) + (outputs is not None)
    tensors = [_tensor(each, f"input {index}", binary, flat) for index, each in enumerate(inputs)]
    binary.end()
    identity = document.get("id")
    if not isinstance(identity, (str, type(None))):
        raise InvalidInput("'id' is a string", where=_BODY)
    parameters = _parameters(document, _REQUEST_PARAMETERS, _BODY)
    timeout = _integer(parameters.get("timeout"), "timeout", _BODY)
    return InferRequest(
        tensors,
        _outputs(outputs or ()),
        identity,
        timeout / 1e6 if timeout else None,
        _boolean(parameters.get("binary_data_output"), "binary_data_output", _BODY) or False,
    )


class _Binary:
    """The bytes behind the document, given out in their order."""

    def __init__(self, body: bytes, start: int) -> None:
        self._body = memoryview(body)
        self._place = start

    def take(self, size: int, where: str) -> memoryview:
        """Return the next so many bytes, which stay where they are."""
        begin, self._place = self._place, self._place + size
        if self._place > len(self._body):
            raise InvalidInput(
                f"binary_data_size is {size}; {len(self._body) - begin} bytes are left after the JSON document",
                where=where,
                remedy="The header Inference-Header-Content-Length says where the document ends",
            )
        return self._body[begin : self._place]

    def end(self) -> None:
        """Check that nothing is left."""
        if self._place != len(self._body):
            raise InvalidInput(
                f"{len(self._body) - self._place} bytes are left over that no input's binary_data_size speaks of",
                where=_BODY,
            )


def _object(value: Any, known: frozenset[str], where: str) -> Members:
    """Return the members of an object, whose keys must be known ones and come once."""
    if not isinstance(value, simdjson.Object):
        raise InvalidInput("an object is needed", where=where)
    keys = list(value)
    found = set(keys)
    if len(found) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InvalidInput(f"the key {twice[:80]!r} comes twice in one object", where=where)
    if not found <= known:
        unknown = next(key for key in keys if key not in known)
        raise InvalidInput(f"unknown key {unknown[:80]!r}", where=where, remedy=f"Known: {', '.join(sorted(known))}")
    return {key: value[key] for key in keys}


def _parameters(owner: Members, known: frozenset[str], where: str) -> Members:
    given = owner.get("parameters")
    return {} if given is None else _object(given, known, f"{where}, parameters")


def _integer(value: Any, name: str, where: str) -> int | None:
    if value is None or (type(value) is int and value >= 0):
        return value
    raise InvalidInput(f"the parameter {name!r} is a whole number of 0 or more", where=where)


def _boolean(value: Any, name: str, where: str) -> bool | None:
    if value is None or type(value) is bool:
        return value
    raise InvalidInput(f"the parameter {name!r} is true or false", where=where)


def _name(owner: Members, where: str) -> str:
    name = owner.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidInput("'name' is a string", where=where)
    return name


def _outputs(values: Any) -> dict[str, bool | None]:
    asked: dict[str, bool | None] = {}
    for index, value in enumerate(values):
        name, binary = _output(value, f"output {index}")
        if name in asked:
            raise InvalidInput(f"the output {name[:100]!r} is asked for twice", where=_BODY)
        asked[name] = binary
    return asked


def _output(value: Any, where: str) -> tuple[str, bool | None]:
    output = _object(value, _OUTPUT, where)
    parameters = _parameters(output, _OUTPUT_PARAMETERS, where)
    return _name(output, where), _boolean(parameters.get("binary_data"), "binary_data", where)


def _tensor(value: Any, where: str, binary: _Binary, flat: bool) -> Tensor:
    given = _object(value, _INPUT, where)
    name = _name(given, where)
    where = f"input {name[:100]}"
    datatype, data = given.get("datatype"), given.get("data")
    if not isinstance(datatype, str):
        raise InvalidInput("'datatype' is a string such as FP32", where=where)
    shape = _shape(given.get("shape"), where)
    parameters = _parameters(given, _INPUT_PARAMETERS, where)
    size = _integer(parameters.get("binary_data_size"), "binary_data_size", where)
    try:
        if size is not None:
            if data is not None:
                raise InvalidInput("the data is both here and in binary", remedy="Leave out one of them")
            return Tensor(name, datatype, from_raw(datatype, shape, binary.take(size, where)))
        if not isinstance(data, simdjson.Array):
            raise InvalidInput("'data' is a list", remedy="Or send it in binary, and its binary_data_size here")
        return Tensor(name, datatype, _data(datatype, shape, data, flat))
    except InvalidInput as error:
        raise InvalidInput(error.message, where=error.where or where, remedy=error.remedy) from None


def _shape(value: Any, where: str) -> list[int]:
    shape: list[Any] = value.as_list() if isinstance(value, simdjson.Array) else [None]
    if any(type(size) is not int for size in shape):
        raise InvalidInput("'shape' is a list of whole numbers", where=where)
    return shape


def _data(datatype: str, shape: list[int], data: Any, flat: bool) -> Array:
    """Read numbers or texts; ``flat``: no list is known to be in the data."""
    codes = _CODES.get(held(datatype).kind)
    if codes is not None:
        try:
            numbers = np.frombuffer(data.as_buffer(of_type=codes[0]), codes[1])
        except (TypeError, ValueError):
            pass  # null, or something that is no such number: the slow way says what
        else:
            lists = len(numbers) != len(data) or (not flat and any(isinstance(each, simdjson.Array) for each in data))
            if lists and len(numbers) == elements(shape) and not (len(shape) > 1 and _nested(data, shape)):
                raise InvalidInput(f"data is not nested as its shape {shape} is")
            return from_numbers(datatype, shape, numbers)
    return from_json(datatype, shape, data.as_list())


def _nested(data: Any, shape: list[int]) -> bool:
    """Say whether lists are nested as a shape is; what the innermost hold was counted already."""
    if not isinstance(data, simdjson.Array) or not shape or len(data) != shape[0]:
        return False
    return len(shape) == 1 or all(_nested(each, shape[1:]) for each in data)
