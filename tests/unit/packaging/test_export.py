from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.unit.packaging.conftest import Trained, steps

from yunmo.bundle.manifest import Tensor, Tensors
from yunmo.core.encoders import RnnEncoder
from yunmo.core.errors import ParityError
from yunmo.models.network import Network
from yunmo.packaging.export import export_graph

EXAMPLE = {"steps": np.zeros((1, 1, 2), np.float32), "steps_length": np.ones(1, np.int64)}


def wanted(*, length: int | None, classes: int) -> Tensors:
    return Tensors(
        inputs=(
            Tensor(name="steps", dtype="float32", shape=(length, 2)),
            Tensor(name="steps_length", dtype="int64", shape=()),
        ),
        outputs=(Tensor(name="label", dtype="float32", shape=(classes,)),),
    )


def network(trained: Trained) -> Network:
    built = Network(trained.recipe, trained.statistics)
    built.load_state_dict(load_file(trained.weights))
    return built


def test_an_example_of_one_row_and_one_step_freezes_nothing(make: Callable[..., Trained]) -> None:
    level = logging.getLogger("torch.onnx").level
    built = network(make(steps(RnnEncoder(cell="gru", hidden=4))))
    assert export_graph(built, wanted(length=None, classes=3), EXAMPLE)
    assert logging.getLogger("torch.onnx").level == level
    assert not built.training


def test_a_graph_of_another_form_than_described_is_refused(make: Callable[..., Trained]) -> None:
    built = network(make(steps(RnnEncoder(cell="gru", hidden=4))))
    with pytest.raises(ParityError, match="'label' has the sizes"):
        export_graph(built, wanted(length=None, classes=5), EXAMPLE)


def test_what_the_exporter_cannot_express_is_refused(make: Callable[..., Trained]) -> None:
    built = network(make(steps(RnnEncoder(cell="gru", hidden=4))))

    class Odd(torch.nn.Module):
        features = 4

        def forward(self, values: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            positive = bool(values.sum() > 0)  # which way it goes depends on the data
            return values.sum(1).repeat(1, 2) if positive else values.amax(1).repeat(1, 2)

    built.parts[0].encoder = Odd()
    with pytest.raises(ParityError, match="cannot be exported"):
        export_graph(built, wanted(length=None, classes=3), EXAMPLE)
