"""Fields that fill columns of one tensor of an imported graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from yunmo.core.errors import InvalidInput
from yunmo.packaging.imported import description as says
from yunmo.packaging.imported.description import WHAT
from yunmo.packaging.imported.tensors import TensorInfo


def category_table(field: says.CategoryInput, tensor: TensorInfo, where: str) -> Any:
    """Return the columns of each category, [1 + categories, width]; row 0 is that of an unknown one."""
    names = [str(name) for name in field.categories]
    if len(set(names)) < len(names):
        raise InvalidInput("a category twice", where=where)
    form = field.form or ("text" if tensor.datatype == "string" else None)
    if form is None:
        raise InvalidInput("does not say what the graph takes", where=where, remedy="Say as: index or as: one_hot")
    if (form == "text") != (tensor.datatype == "string"):
        raise InvalidInput(f"as: {form}, and the tensor {tensor.name!r} is of {tensor.datatype}", where=where)
    if form == "one_hot":
        return np.vstack([np.zeros(len(names)), np.eye(len(names))]).astype(tensor.datatype)
    if field.unknown is None:
        raise InvalidInput(
            "does not say what stands for a category that is not listed",
            where=where,
            remedy="Say unknown: TEXT" if form == "text" else "Say unknown: INDEX",
        )
    if form == "text":
        return np.array([[str(field.unknown)], *([name] for name in names)], object)
    if not isinstance(field.unknown, int):
        raise InvalidInput("unknown is no whole number", where=where)
    return np.array([[field.unknown], *([index] for index in range(len(names)))]).astype(tensor.datatype)


def column_order(fields: Sequence[says.Column_], widths: Sequence[int]) -> Any:
    """Return which of the joined columns stands in each place, None if they are in order as listed."""
    if all(field.columns is None for field in fields):
        return None
    places: list[int] = []
    for field, width in zip(fields, widths, strict=True):
        where = f"{WHAT}, inputs, {field.name}, columns"
        columns = (field.columns,) if isinstance(field.columns, int) else field.columns
        if columns is None:
            raise InvalidInput("missing", where=where, remedy="If one field of a tensor has columns, all have")
        if len(columns) != width:
            raise InvalidInput(f"{len(columns)} columns for a field that fills {width}", where=where)
        places += columns
    if sorted(places) != list(range(len(places))):
        raise InvalidInput(
            "columns are left out or taken twice",
            where=f"{WHAT}, inputs",
            remedy=f"Together the fields have the columns 0 to {len(places) - 1}",
        )
    return np.argsort(np.array(places)).astype(np.int64)
