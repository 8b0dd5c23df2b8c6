"""Fuzzes infer requests with binary tensors behind the JSON document, and the header that says where it ends."""

from __future__ import annotations

import json

import numpy as np
from tests.fuzz.driver import fuzz, watched
from tests.fuzz.oip_json import compare
from tests.fuzz.tensors import EXAMPLES, MODELS, WORDS, go_on, raw

with watched():
    from tests.fuzz.models import opened

    from yunmo.protocol.tensors import to_raw
    from yunmo.serving.oip.body import header_length, read_request
    from yunmo.serving.oip.signature import signature


def check(data: bytes) -> None:
    """Read a body; in front of it are a byte for the model and a line with the header's text (none: no header)."""
    which, (head, _, body) = (data[0] if data else 0), data[1:].partition(b"\n")
    length = header_length(head.decode("latin-1") if head else None, len(body))
    assert 0 <= length <= len(body)
    if body and not length:
        model = opened(MODELS[which % len(MODELS)])
        model.encode_columns(signature(model).single(memoryview(body)), 1)
        return
    asked = read_request(body, length)
    compare(asked, body[:length])
    place = length
    for described, tensor in zip(json.loads(body[:length])["inputs"], asked.tensors, strict=True):
        size = (described.get("parameters") or {}).get("binary_data_size")
        if size is None:
            continue
        found = to_raw(tensor.datatype, tensor.array)
        nan = tensor.datatype == "BF16" and np.isnan(tensor.array).any()  # their bits are not kept
        assert nan or found == body[place : place + size], "other bytes than were sent"
        place += size
    assert place == len(body), "bytes that nobody spoke of were taken"
    go_on(which, asked.tensors, list(asked.outputs))


def seeds() -> list[bytes]:
    """Return examples, every input in binary or every other one."""
    made = []
    for index, name in enumerate(MODELS):
        for every in (1, 2):
            inputs, parts = [], b""
            for place, example in enumerate(EXAMPLES[name]):
                described = {"name": example[0], "datatype": example[1], "shape": example[2]}
                if place % every == 0:
                    parts += raw(example)
                    described["parameters"] = {"binary_data_size": len(raw(example))}
                else:
                    described["data"] = example[3]
                inputs.append(described)
            text = json.dumps({"inputs": inputs, "outputs": []}).encode()
            made.append(b"%c%d\n" % (index, len(text)) + text + parts)
    return [*made, b"\x010\n" + bytes(192), b"\x010\n" + b"\x89PNG\r\n\x1a\n"]


if __name__ == "__main__":
    fuzz(
        check,
        seeds(),
        [
            *WORDS,
            b'"binary_data_size"',
            b'"parameters"',
            b'"shape"',
            b"[0]",
            b"4294967296",
            b"\xff\xff\xff\xff",
            b"null",
        ],
    )
