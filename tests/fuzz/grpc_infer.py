"""Fuzzes ModelInferRequest messages; what was raw is the same when it is written again."""

from __future__ import annotations

import numpy as np
from google.protobuf.message import DecodeError
from tests.fuzz.driver import fuzz, watched
from tests.fuzz.tensors import EXAMPLES, MODELS, WORDS, go_on, raw

with watched():
    from yunmo.core.errors import InvalidInput
    from yunmo.protocol import oip_pb2 as pb
    from yunmo.protocol.tensors import to_contents, to_raw
    from yunmo.serving.grpc.messages import read_outputs, read_tensors, read_timeout
    from yunmo.serving.oip.metadata import read_version


def check(data: bytes) -> None:
    """Read a message and hold it against a model: that of the first byte."""
    try:
        request = pb.ModelInferRequest.FromString(data[1:])
    except DecodeError:
        raise InvalidInput("as the service says") from None
    request.DiscardUnknownFields()
    tensors, outputs = read_tensors(request), read_outputs(request)
    timeout = read_timeout(request)
    assert timeout is None or timeout > 0
    read_version(request.model_version)
    for index, (described, tensor) in enumerate(zip(request.inputs, tensors, strict=True)):
        assert list(described.shape) == list(tensor.array.shape)
        if request.raw_input_contents:
            nan = tensor.datatype == "BF16" and np.isnan(tensor.array).any()  # their bits are not kept
            assert nan or to_raw(tensor.datatype, tensor.array) == request.raw_input_contents[index]
        else:
            again = pb.InferTensorContents()
            to_contents(tensor.datatype, tensor.array, again)
            floats = tensor.array.dtype.kind == "f" and np.isnan(tensor.array).any()
            assert floats or again == described.contents, "other elements than were sent"
    go_on(data[0] if data else 0, tensors, outputs)


def seeds() -> list[bytes]:
    """Return examples, raw and typed."""
    made = []
    for index, name in enumerate(MODELS):
        for typed in (False, True):
            request = pb.ModelInferRequest(model_name=name, model_version="1", id="7")
            request.parameters["timeout"].int64_param = 1000
            for example in EXAMPLES[name]:
                each, datatype, shape, values = example
                tensor = request.inputs.add(name=each, datatype=datatype, shape=shape)
                if not typed:
                    request.raw_input_contents.append(raw(example))
                elif datatype != "FP16":
                    kind = np.dtype(object) if datatype == "BYTES" else None
                    numbers = [np.nan if value is None else value for value in values]
                    to_contents(datatype, np.array(numbers, kind), tensor.contents)
            request.outputs.add(name="label")
            made.append(bytes([index]) + request.SerializeToString())
    return made


if __name__ == "__main__":
    fuzz(check, seeds(), WORDS)
