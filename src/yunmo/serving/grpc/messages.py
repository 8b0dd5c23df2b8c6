"""Infer requests and answers in protobuf, from and to tensors."""

from __future__ import annotations

from typing import Any

import msgspec

from yunmo.core.errors import InvalidInput
from yunmo.protocol.oip_pb2 import InferParameter, ModelInferRequest, ModelInferResponse
from yunmo.protocol.tensors import from_contents, from_raw, to_contents, to_raw
from yunmo.serving.dataplane import Inferred
from yunmo.serving.oip.signature import Tensor, answer, signature

_PARAMETERS = frozenset({"timeout", "priority"})
_TYPED = frozenset({"FP16", "BF16"})
"""Datatypes that have no typed list."""


def read_tensors(request: ModelInferRequest) -> list[Tensor]:
    """Return the inputs of a request. Raw numbers are not copied.

    Raises:
        InvalidInput: an unknown parameter, or a tensor that is not what it says.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidInput(
            f"{len(raw)} raw_input_contents for {len(request.inputs)} inputs",
            remedy="Send one for each, in their order",
        )
    tensors = []
    for index, tensor in enumerate(request.inputs):
        try:
            _refuse_parameters(tensor.parameters, frozenset())
            if not raw:
                array = from_contents(tensor.datatype, tensor.shape, tensor.contents)
            elif tensor.HasField("contents"):
                raise InvalidInput("contents beside raw_input_contents", remedy="Leave out one of them")
            else:
                array = from_raw(tensor.datatype, tensor.shape, raw[index])
        except InvalidInput as error:
            raise InvalidInput(error.message, where=f"input {tensor.name[:100]}", remedy=error.remedy) from None
        tensors.append(Tensor(tensor.name, tensor.datatype, array))
    return tensors


def read_timeout(request: ModelInferRequest) -> float | None:
    """Return the seconds that the parameter ``timeout`` (microseconds) gives a request.

    Raises:
        InvalidInput: an unknown parameter, or a timeout that is no number.
    """
    parameters = request.parameters
    if not parameters:
        return None
    _refuse_parameters(parameters, _PARAMETERS)
    if "timeout" not in parameters:
        return None
    value = _value(parameters["timeout"])
    if type(value) is not int or value < 0:
        raise InvalidInput("the parameter 'timeout' is a whole number of microseconds")
    return value / 1e6 or None


def read_outputs(request: ModelInferRequest) -> list[str]:
    """Return the names of the outputs asked for; none: all.

    Raises:
        InvalidInput: an unknown parameter.
    """
    names = []
    for output in request.outputs:
        _refuse_parameters(output.parameters, frozenset())
        names.append(output.name)
    return names


def write_answer(request: ModelInferRequest, outputs: list[str], inferred: Inferred) -> bytes:
    """Return the serialized answer; its data has the form that the request's had, raw or typed.

    Raises:
        ModelFailed: an output is NaN or infinite where that cannot be.
    """
    form = signature(inferred.predictor)
    tensors = [answer(output, inferred.tensors) for output in form.choose(outputs)]
    response = ModelInferResponse(model_name=request.model_name, model_version=str(inferred.version), id=request.id)
    typed = not request.raw_input_contents and not any(tensor.datatype in _TYPED for tensor in tensors)
    for tensor in tensors:
        described = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        if typed:
            to_contents(tensor.datatype, tensor.array, described.contents)
        else:
            response.raw_output_contents.append(to_raw(tensor.datatype, tensor.array))
    return response.SerializeToString()


def convert(value: msgspec.Struct, message: Any) -> bytes:
    """Return a generated struct as the serialized message of the same fields."""
    return bytes(message(**msgspec.to_builtins(value)).SerializeToString())


def _value(parameter: InferParameter) -> object:
    kind = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, kind) if kind else None


def _refuse_parameters(parameters: Any, known: frozenset[str]) -> None:
    for name in parameters:
        if name not in known:
            raise InvalidInput(
                f"unknown parameter {name[:80]!r}", remedy=f"Known here: {', '.join(sorted(known)) or 'none'}"
            )
