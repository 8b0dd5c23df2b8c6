"""The weights of a large graph in a file of their own, so that all processes that run it share one copy of them.

ONNX Runtime maps such a file. But what a matrix product reads is not the matrix: it is the same numbers in the order
that suits the processor, which ONNX Runtime makes of it when it loads the graph, and every process for itself. So the
file has both: the matrix, and behind it that order. ONNX Runtime still makes it at load, finds the same bytes (by their
hash) in the file, maps those, and lets go of its own: the run is as fast and its answers the same to the bit. Where
another processor or another ONNX Runtime wants another order, the hashes differ and each process keeps its own, as
without the file. Measured in ``benchmarks/weights_sharing.py``.

Not shared: what ONNX Runtime computes of weights when it loads: the filters of convolutions in another order, and the
matrices of recurrent layers, which torch exports to be joined then.
"""

from __future__ import annotations

import logging
import math
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types
from onnx import TensorProto, helper, numpy_helper

from yunmo.bundle.files import GRAPH, GRAPH_WEIGHTS
from yunmo.core.files import open_atomic, storage_errors, storage_full, write_atomic
from yunmo.inference.session import session_options

LARGE = 32 * 2**20
"""Bytes of weights beyond which they get a file; a smaller model's second copy is not worth one."""
ALIGNMENT = 64 * 2**10
"""Where tensors begin in the file: what the largest pages ONNX Runtime maps are (4 to 64 KiB). Smaller tensors stay in
the graph."""

_logger = logging.getLogger("yunmo.packaging")

_ORDER = re.compile(r"(?P<key>[^|]+)(?P<pieces>(\|\d+;\d+;\d+)+)")
"""How ONNX Runtime says in the graph which order it wrote: ``KEY|OFFSET;LENGTH;CHECKSUM|…``."""
_PLAIN = frozenset(
    {
        *(TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BOOL),
        *(TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
        *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
    }
)
"""Types whose values numpy holds as ONNX writes them."""


def write_graph(folder: Path, graph: bytes) -> None:
    """Write a graph into a bundle, a large one's weights into a file beside it.

    Args:
        folder: of the bundle.
        graph: the whole ONNX file; ONNX Runtime has loaded it before.

    Raises:
        StorageFull: the disk is full.
    """
    model = onnx.ModelProto()
    if len(graph) > LARGE:
        model.ParseFromString(graph)
    tensors = list(_large(model.graph))
    if sum(len(tensor.raw_data) for tensor in tensors) <= LARGE:
        write_atomic(folder / GRAPH, graph)
        return
    with storage_errors(folder), tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        packed = _pack(graph, Path(scratch))
        with open_atomic(folder / GRAPH_WEIGHTS) as file:
            for tensor in tensors:
                _move(tensor, file, packed.get(tensor.name))
    write_atomic(folder / GRAPH, model.SerializeToString(deterministic=True))


@dataclass(frozen=True)
class _Packed:
    """A tensor in the file that ONNX Runtime wrote."""

    tensor: onnx.TensorProto
    """Says where, and in which orders."""
    file: Any
    """The file's bytes."""

    @property
    def said(self) -> dict[str, str]:
        """What the graph says of the tensor's values."""
        return {entry.key: entry.value for entry in self.tensor.external_data}

    def is_same(self, tensor: onnx.TensorProto) -> bool:
        """Say whether a tensor has these values: optimising the graph may have changed them under the old name."""
        begin, size = int(self.said["offset"]), int(self.said["length"])
        return (
            self.tensor.data_type == tensor.data_type
            and self.tensor.dims == tensor.dims
            and size == len(tensor.raw_data)
            and np.array_equal(self.file[begin : begin + size], np.frombuffer(tensor.raw_data, np.uint8))
        )

    def orders(self) -> Iterator[tuple[str, str, list[tuple[Any, str]]]]:
        """Yield each order's name, ONNX Runtime's key of it, and its pieces with what is said of each."""
        for name, value in self.said.items():
            match = _ORDER.fullmatch(value) if name.startswith("prepacked_") else None
            if match is not None:
                pieces = []
                for piece in match["pieces"].split("|")[1:]:
                    begin, size, rest = piece.split(";")
                    pieces.append((self.file[int(begin) : int(begin) + int(size)], rest))
                yield name, match["key"], pieces


def _large(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield the tensors that go into the file, their values as raw bytes."""
    for tensor in graph.initializer:
        if tensor.data_type not in _PLAIN:
            continue
        size = math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        if size < ALIGNMENT:
            continue
        if not tensor.HasField("raw_data"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
        yield tensor


def _pack(graph: bytes, scratch: Path) -> dict[str, _Packed]:
    """Have ONNX Runtime write the graph as it runs it here; return its weights by name, none if it can't.

    Raises:
        StorageFull: the disk is full.
    """
    options = session_options(threads=1)
    options.optimized_model_filepath = str(scratch / GRAPH)
    for key, value in (
        ("session.optimized_model_external_initializers_file_name", GRAPH_WEIGHTS),
        ("session.optimized_model_external_initializers_min_size_in_bytes", str(ALIGNMENT)),
        ("session.save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(key, value)
    try:
        ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own classes share no base but Exception
        if shutil.disk_usage(scratch).free < len(graph):
            raise storage_full(scratch.parent) from error
        # Worth a line and no more: the model runs all the same, and only its memory is not shared.
        _logger.warning("the weights' order cannot be written: %s", error)
        return {}
    written = onnx.load(scratch / GRAPH, load_external_data=False)
    outside = [tensor for tensor in written.graph.initializer if tensor.external_data]
    if not outside:
        return {}
    file = np.memmap(scratch / GRAPH_WEIGHTS, np.uint8, "r")
    return {tensor.name: _Packed(tensor, file) for tensor in outside}


def _move(tensor: onnx.TensorProto, file: IO[bytes], packed: _Packed | None) -> None:
    """Move a tensor's values into the file, and the orders of them behind."""
    said = {
        "location": GRAPH_WEIGHTS,
        "offset": str(_append(file, tensor.raw_data)),
        "length": str(len(tensor.raw_data)),
    }
    if packed is not None and packed.is_same(tensor):
        for name, key, pieces in packed.orders():
            places = [f"{_append(file, piece)};{len(piece)};{rest}" for piece, rest in pieces]
            said[name] = "|".join((key, *places))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in said.items():
        tensor.external_data.add(key=key, value=value)


def _append(file: IO[bytes], data: Any) -> int:
    """Write at the next page; return where that is."""
    begin = -(-file.tell() // ALIGNMENT) * ALIGNMENT
    file.seek(begin)
    file.write(data)
    return begin
