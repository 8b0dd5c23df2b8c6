import io
import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from yunmo.core import encoders as specs
from yunmo.core.fields import FieldStatistics
from yunmo.models.encoders.registry import build_encoder

SEQUENCE = FieldStatistics(name="s", type="sequence", role="input", encode_version=1, count=1, shape=(20, 3))
CELLS = [("rnn", "tanh"), ("rnn", "relu"), ("lstm", "tanh"), ("gru", "tanh")]


@pytest.mark.parametrize(("cell", "activation"), CELLS)
@pytest.mark.parametrize("pool", ["last", "mean", "max", "mean_max"])
def test_padding_changes_nothing(cell: str, activation: str, pool: str) -> None:
    spec = specs.RnnEncoder(cell=cell, activation=activation, hidden=5, layers=2, bidirectional=True, pool=pool)
    encoder = build_encoder(spec, SEQUENCE).eval()
    torch.manual_seed(0)
    values = torch.randn(3, 12, 3)
    lengths = torch.tensor([12, 7, 1])
    together = encoder(values, lengths)
    assert together.shape == (3, encoder.features)
    for index, length in enumerate(lengths.tolist()):
        alone = encoder(values[index : index + 1, :length], torch.tensor([length]))
        assert torch.allclose(together[index], alone[0], atol=1e-6)


def test_a_picture_is_read_row_by_row() -> None:
    picture = FieldStatistics(name="p", type="image", role="input", encode_version=1, count=1, shape=(6, 4, 3))
    encoder = build_encoder(specs.RnnEncoder(cell="rnn", activation="relu", hidden=8), picture).eval()
    values = torch.randn(2, 3, 6, 4)
    assert encoder.features == 8
    before = encoder(values)
    values[:, :, -1] += 1
    assert not torch.allclose(before, encoder(values))


class _Graph(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, values: Tensor, length: Tensor) -> Tensor:
        answer: Tensor = self.encoder(values, length)
        return answer


@pytest.mark.parametrize(("cell", "activation"), CELLS)
def test_the_exported_graph_runs_at_other_batches_and_lengths(cell: str, activation: str) -> None:
    spec = specs.RnnEncoder(
        cell=cell, activation=activation, hidden=4, layers=2, bidirectional=True, project=6, pool="mean_max"
    )
    encoder = build_encoder(spec, SEQUENCE).eval()
    dynamic = torch.export.Dim.DYNAMIC
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(
            _Graph(encoder).eval(),
            (torch.randn(2, 20, 3), torch.tensor([20, 5])),
            dynamo=True,
            dynamic_shapes=({0: dynamic, 1: dynamic}, {0: dynamic}),
            input_names=["values", "length"],
            verbose=False,
        )
    assert program is not None
    buffer = io.BytesIO()
    program.save(buffer)
    session = onnxruntime.InferenceSession(buffer.getvalue())
    for rows, steps in ((1, 1), (5, 9), (3, 33)):
        values, length = torch.randn(rows, steps, 3), torch.randint(1, steps + 1, (rows,))
        (answer,) = session.run(None, {"values": values.numpy(), "length": length.numpy()})
        np.testing.assert_allclose(answer, encoder(values, length).detach().numpy(), atol=1e-5)
