from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  the field's usual name

from yunmo.core.encoders import TextCnnEncoder as Spec
from yunmo.core.fields import FieldStatistics
from yunmo.models.encoders.textcnn import TextCnnEncoder

SEQUENCE = FieldStatistics(name="x", type="sequence", role="input", encode_version=1, count=2, shape=(9, 4))


def encoder(widths: tuple[int, ...]) -> TextCnnEncoder:
    torch.manual_seed(0)
    return TextCnnEncoder(Spec(filters=3, widths=widths), SEQUENCE).eval()


def test_each_filter_keeps_its_largest_value() -> None:
    network = encoder((2,))
    values = torch.randn(2, 9, 4)
    (layer,) = network.filters
    maps = F.conv1d(F.pad(values.transpose(1, 2), (0, 1)), layer.weight, layer.bias).relu()
    torch.testing.assert_close(network(values, torch.tensor([9, 9])), maps.amax(2))


def test_padding_changes_nothing_and_texts_may_be_shorter_than_a_filter() -> None:
    network = encoder((3, 5))
    length = torch.tensor([3, 1, 0])
    short = torch.randn(3, 3, 4) * (torch.arange(3) < length[:, None]).unsqueeze(2)
    long = F.pad(short, (0, 0, 0, 6))
    found = network(short, length)
    assert found.shape == (3, 6)
    assert found.isfinite().all()
    torch.testing.assert_close(network(long, length), found)
