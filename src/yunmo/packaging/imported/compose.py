"""Joining nodes to an imported graph, so that it takes encoded fields and answers as a trained bundle's does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from yunmo.core.errors import InvalidInput
from yunmo.core.fields import JOINED_NUMBERS, FieldStatistics, ModelInput, ModelOutput
from yunmo.packaging.imported import description as says
from yunmo.packaging.imported.answers import Answers
from yunmo.packaging.imported.description import WHAT
from yunmo.packaging.imported.graph import Graph
from yunmo.packaging.imported.inputs import Inputs
from yunmo.packaging.imported.tensors import TensorInfo

Sources = dict[str, list[says.Input]]
"""By input of the imported graph: the fields that fill it."""


@dataclass(frozen=True)
class Fields:
    """What the composed graph takes and answers."""

    inputs: tuple[ModelInput, ...]
    outputs: tuple[ModelOutput, ...]
    statistics: dict[str, FieldStatistics]
    joined: tuple[str, ...] = ()
    """The number fields that come in one tensor."""


def compose(
    graph: Graph, inputs: dict[str, TensorInfo], outputs: dict[str, TensorInfo], description: says.Description
) -> Fields:
    """Join what a description says; what it leaves out becomes tensors.

    Args:
        graph: changed in place.
        inputs: its inputs, by name.
        outputs: its outputs, by name.
        description: how they are fields.

    Raises:
        InvalidInput: the description does not fit the graph.
    """
    fields = description.inputs or tuple(says.TensorInput(name=name) for name in inputs)
    asked = description.outputs or tuple(says.TensorAnswer(name=name) for name in outputs)
    sources = _group(fields, inputs)
    targets = {one.name: _pick(one.tensor, one.name, outputs, f"outputs, {one.name}", "output") for one in asked}
    numbers = tuple(field.name for field in fields if isinstance(field, says.NumberInput))
    joined = numbers if len(numbers) > 1 else ()
    now = _make_room(graph, fields, asked, sources, targets)
    before, after = Inputs(graph, joined), Answers(graph)
    for tensor, filling in sources.items():
        before.join(inputs[tensor], filling, now.get(tensor, tensor))
    for answer in asked:
        target = targets[answer.name]
        after.join(outputs[target], answer, now.get(target, target))
    graph.surround(before.values, before.nodes, after.nodes, after.values)
    return Fields(
        inputs=tuple(before.specs[field.name] for field in fields),
        outputs=tuple(after.specs),
        statistics=before.statistics | after.statistics,
        joined=joined,
    )


def _group(fields: Sequence[says.Input], inputs: dict[str, TensorInfo]) -> Sources:
    """Return the fields of each tensor of the graph."""
    sources: Sources = {}
    for index, field in enumerate(fields):
        tensor = _pick(field.tensor, field.name, inputs, f"inputs[{index}]", "input")
        sources.setdefault(tensor, []).append(field)
    for tensor in inputs:
        if tensor not in sources:
            raise InvalidInput(
                f"no field fills the graph's input {tensor!r}", where=f"{WHAT}, inputs", remedy="Add one for it"
            )
    for tensor, filling in sources.items():
        if len(filling) > 1 and not all(isinstance(field, says.Column_) for field in filling):
            raise InvalidInput(
                f"{len(filling)} fields for the tensor {tensor!r}",
                where=f"{WHAT}, inputs",
                remedy="Only fields of type number, category and vector can share a tensor, in columns",
            )
    return sources


def _make_room(
    graph: Graph,
    fields: Sequence[says.Input],
    asked: Sequence[says.Answer],
    sources: Sources,
    targets: dict[str, str],
) -> dict[str, str]:
    """Free the names of fields: a value within the graph that has one gets another. Return the new names by the old."""
    same = {tensor for tensor, filling in sources.items() if _passes(filling) and filling[0].name == tensor}
    same |= {one.name for one in asked if isinstance(one, says.TensorAnswer) and targets[one.name] == one.name}
    wanted = {JOINED_NUMBERS, *(one.name for one in (*fields, *asked))} - same
    now = {name: graph.fresh(name) for name in wanted if graph.is_taken(name)}
    graph.rename(now)
    for tensor, filling in sources.items():
        if _passes(filling) and filling[0].name != tensor:
            # The input itself takes the field's name.
            graph.rename({now.get(tensor, tensor): filling[0].name})
            now[tensor] = filling[0].name
    return now


def _pick(said: str | None, name: str, tensors: dict[str, TensorInfo], where: str, what: str) -> str:
    """Return the tensor that is meant: the one said, the one of the field's name, or the only one."""
    if said is None and name in tensors:
        return name
    if said is None and len(tensors) == 1:
        return next(iter(tensors))
    if said not in tensors:
        known = ", ".join(tensors)
        found = f"the graph has no {what} {said!r}" if said is not None else "does not say which tensor"
        raise InvalidInput(found, where=f"{WHAT}, {where}, tensor", remedy=f"It has: {known}")
    return said


def _passes(filling: Sequence[says.Input]) -> bool:
    return isinstance(filling[0], says.TensorInput)
